//! The OpenAPI description: endpoints from the code that serves them, event formats from here.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

/// The description of a body, for both endpoints.
pub(crate) const BODY: &str = "One event, an array of events, `{\"events\": […], \"sent_at\": …}`, \
or one event a line (`application/x-ndjson`; also `text/plain` or no Content-Type, as beacons send it). \
`Content-Encoding` may be gzip, deflate, zstd or br. Fields that are not listed are kept in `meta.extra` and told in `warnings`; `strict=true` refuses them. \
Two fields for one thing (`tenant_id` and `tenant`, an id and its hash, `occurred_at`, `ts` and `timestamp`) have to agree. \
An answer has at most three times the bytes of the body, decompressed, and 4 KiB: the first hundred results at most stand \
one by one, the others are summed up by code, with their places in the body.";

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "recsys-ingest",
        description = "Takes recommendation exposures and interactions into partitioned Postgres tables. \
                       Every event gets its own result; the answer says what was reached, and it is true."
    ),
    components(schemas(
        Exposure, Interaction, InteractionItem, Order, ShownItem, Experiment
    )),
    modifiers(&Security)
)]
pub(crate) struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        let query = ApiKey::Query(ApiKeyValue::with_description("key", "For beacons."));
        let basic = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("The API key as the user, no password."))
            .build();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The API key as the token."))
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
        components.add_security_scheme("query_key", SecurityScheme::ApiKey(query));
        components.add_security_scheme("basic", SecurityScheme::Http(basic));
    }
}

/// A native exposure. service_v1, eval_v1 and pipelines_v1 are recognised too.
#[derive(Serialize, ToSchema)]
pub(crate) struct Exposure {
    /// A UUID, or any string of at most 200 bytes; makes a repeated event a duplicate.
    event_id: Option<String>,
    /// RFC 3339. Part of the event's identity: repeat it unchanged when you retry.
    occurred_at: Option<String>,
    /// The id of the recommendation request; joins exposures with interactions.
    request_id: String,
    surface: String,
    segment: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `user_id_hash`.
    user_id: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `anonymous_id_hash`.
    anonymous_id: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `session_id_hash`.
    session_id: Option<String>,
    experiment: Option<Experiment>,
    algo_version: Option<String>,
    config_version: Option<String>,
    rules_version: Option<String>,
    context: Option<BTreeMap<String, String>>,
    items: Vec<ShownItem>,
    /// The recommendation request.
    #[schema(value_type = Option<Object>)]
    request: Option<()>,
    /// Other members to keep.
    #[schema(value_type = Option<Object>)]
    meta: Option<()>,
    /// Another tenant than the key's own: only with the role `service`.
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Experiment {
    id: Option<String>,
    variant: Option<String>,
}

/// An item that was shown; further members are kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownItem {
    item_id: String,
    /// From 1; its place in the list if absent.
    rank: Option<i32>,
    score: Option<f64>,
}

/// A native interaction. outcome_v1 is recognised too.
#[derive(Serialize, ToSchema)]
pub(crate) struct Interaction {
    /// A UUID, or any string of at most 200 bytes; makes a repeated event a duplicate.
    event_id: Option<String>,
    /// RFC 3339. Part of the event's identity: repeat it unchanged when you retry.
    occurred_at: Option<String>,
    /// The id of the recommendation request that showed the item.
    request_id: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `user_id_hash`.
    user_id: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `anonymous_id_hash`.
    anonymous_id: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `session_id_hash`.
    session_id: Option<String>,
    surface: Option<String>,
    segment: Option<String>,
    /// impression, view, click, add_to_cart, purchase (conversion means purchase).
    event_type: String,
    /// The item; `item_id` or `items` is required, and not both.
    item_id: Option<String>,
    /// With `item_id`: its place in the list.
    #[schema(minimum = 0)]
    position: Option<i32>,
    /// With `item_id`. Below 10^12; kept to six decimals, never through a float.
    value: Option<f64>,
    /// Several items of one event, each of which becomes a row. One that is not valid rejects the
    /// event.
    #[schema(min_items = 1, max_items = 1000)]
    items: Option<Vec<InteractionItem>>,
    order: Option<Order>,
    /// Other members to keep.
    #[schema(value_type = Option<Object>)]
    meta: Option<()>,
    /// Another tenant than the key's own: only with the role `service`.
    tenant_id: Option<String>,
}

/// One of several items of an interaction; further members are kept in `meta.extra.items`.
#[derive(Serialize, ToSchema)]
pub(crate) struct InteractionItem {
    item_id: String,
    /// Its place in the list.
    #[schema(minimum = 0)]
    position: Option<i32>,
    /// How many; 1 if absent. Kept in `meta.quantity`.
    quantity: Option<f64>,
    /// Of one. Kept in `meta.price`.
    price: Option<f64>,
    /// The row's value; if absent, it is `price` times `quantity`, exactly, rounded to six decimals.
    value: Option<f64>,
}

/// The order that the items belong to. Kept whole in the `meta.order` of each row, and in no
/// column, so that its value is not counted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Order {
    #[schema(min_length = 1, max_length = 512)]
    id: String,
    value: Option<f64>,
    #[schema(max_length = 512, example = "EUR")]
    currency: Option<String>,
}
