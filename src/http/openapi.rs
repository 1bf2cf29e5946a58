//! The OpenAPI description: endpoints from the code that serves them, event formats from here, and
//! what all endpoints share from `operations`.

mod codes;
mod operations;
mod preflight;
mod segment;

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::ingest::response::Answer;
use super::ingest::segment::Collected;
use super::problem::ProblemBody;

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "recsys-ingest",
        description = "Takes recommendation exposures, interactions and assignments to experiments into partitioned Postgres tables. \
                       Every event gets its own result; the answer says what was reached, and it is true. \
                       [What each code means](/problems)."
    ),
    components(schemas(
        Exposure, Interaction, Assignment, InteractionItem, Order, ShownItem, Experiment, Answer, Collected,
        ProblemBody
    )),
    modifiers(&Security)
)]
pub(crate) struct Description;

/// Completes the description of the routes.
pub(crate) fn complete(routes: &utoipa::openapi::OpenApi) -> Value {
    let mut document =
        serde_json::to_value(routes).expect("the description is made of strings and numbers");
    operations::complete(&mut document);
    segment::complete(&mut document);
    preflight::complete(&mut document);
    codes::complete(&mut document);
    document
}

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

/// A native exposure. service_v1, eval_v1 and pipelines_v1 are recognised too. Fields that are not
/// listed are kept in `meta.extra`. Lengths are in bytes of UTF-8.
#[derive(Serialize, ToSchema)]
pub(crate) struct Exposure {
    /// A UUID, or any other string; makes a repeated event a duplicate, together with `occurred_at`.
    #[schema(max_length = 200)]
    event_id: Option<String>,
    /// RFC 3339 with an offset; the time of receipt if absent. Part of the event's identity: repeat
    /// it unchanged when you retry.
    #[schema(format = DateTime)]
    occurred_at: Option<String>,
    /// The id of the recommendation request; joins exposures with interactions.
    #[schema(min_length = 1, max_length = 512)]
    request_id: String,
    /// Where it was shown. Not `.` or `..`.
    #[schema(min_length = 1, max_length = 512, pattern = r"^[^/\\\x00-\x1F\x7F]*$")]
    surface: String,
    #[schema(max_length = 512, pattern = r"^[^/\\\x00-\x1F\x7F]*$")]
    segment: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `user_id_hash`.
    user_id: Option<String>,
    /// HMAC-SHA256 of the user's id under the suite's salt, in hex. Beside `user_id` it has to be that one's hash.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    user_id_hash: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `anonymous_id_hash`.
    anonymous_id: Option<String>,
    /// As `user_id_hash`, of `anonymous_id`.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    anonymous_id_hash: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `session_id_hash`.
    session_id: Option<String>,
    /// As `user_id_hash`, of `session_id`.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    session_id_hash: Option<String>,
    experiment: Option<Experiment>,
    #[schema(max_length = 512)]
    algo_version: Option<String>,
    #[schema(max_length = 512)]
    config_version: Option<String>,
    #[schema(max_length = 512)]
    rules_version: Option<String>,
    /// What was known of the request.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    context: Option<()>,
    /// What was shown, in order.
    #[schema(max_items = 1000)]
    items: Vec<ShownItem>,
    /// The recommendation request.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    request: Option<()>,
    /// Other members to keep.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    meta: Option<()>,
    /// Another tenant than the key's own: only with the role `service`.
    #[schema(max_length = 200)]
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Experiment {
    #[schema(max_length = 512)]
    id: Option<String>,
    #[schema(max_length = 512)]
    variant: Option<String>,
}

/// An item that was shown; further members are kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownItem {
    #[schema(min_length = 1, max_length = 512)]
    item_id: String,
    /// From 1; its place in the list if absent.
    #[schema(minimum = 1)]
    rank: Option<i32>,
    score: Option<f64>,
}

/// A native interaction. outcome_v1 is recognised too. Fields that are not listed are kept in
/// `meta.extra`. Lengths are in bytes of UTF-8.
#[derive(Serialize, ToSchema)]
pub(crate) struct Interaction {
    /// A UUID, or any other string; makes a repeated event a duplicate, together with `occurred_at`.
    #[schema(max_length = 200)]
    event_id: Option<String>,
    /// RFC 3339 with an offset; the time of receipt if absent. Part of the event's identity: repeat
    /// it unchanged when you retry.
    #[schema(format = DateTime)]
    occurred_at: Option<String>,
    /// The id of the recommendation request that showed the item.
    #[schema(max_length = 512)]
    request_id: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `user_id_hash`.
    user_id: Option<String>,
    /// HMAC-SHA256 of the user's id under the suite's salt, in hex. Beside `user_id` it has to be that one's hash.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    user_id_hash: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `anonymous_id_hash`.
    anonymous_id: Option<String>,
    /// As `user_id_hash`, of `anonymous_id`.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    anonymous_id_hash: Option<String>,
    /// Raw; only its keyed hash is stored. Or send `session_id_hash`.
    session_id: Option<String>,
    /// As `user_id_hash`, of `session_id`.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    session_id_hash: Option<String>,
    /// Where it happened. Not `.` or `..`.
    #[schema(max_length = 512, pattern = r"^[^/\\\x00-\x1F\x7F]*$")]
    surface: Option<String>,
    #[schema(max_length = 512, pattern = r"^[^/\\\x00-\x1F\x7F]*$")]
    segment: Option<String>,
    /// `conversion` means `purchase`.
    event_type: String,
    /// The item; `item_id` or `items` is required, and not both.
    #[schema(min_length = 1, max_length = 512)]
    item_id: Option<String>,
    /// With `item_id`: its place in the list.
    #[schema(minimum = 0)]
    position: Option<i32>,
    /// With `item_id`. Kept to six decimals, never through a float.
    #[schema(exclusive_minimum = -1_000_000_000_000.0, exclusive_maximum = 1_000_000_000_000.0)]
    value: Option<f64>,
    /// Several items of one event, each of which becomes a row. One that is not valid rejects the
    /// event.
    #[schema(min_items = 1, max_items = 1000)]
    items: Option<Vec<InteractionItem>>,
    order: Option<Order>,
    /// Other members to keep.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    meta: Option<()>,
    /// Another tenant than the key's own: only with the role `service`.
    #[schema(max_length = 200)]
    tenant_id: Option<String>,
}

/// An assignment to a variant of an experiment: assignment_v1. Fields that are not listed are kept
/// in `meta.extra`. Lengths are in bytes of UTF-8.
#[derive(Serialize, ToSchema)]
pub(crate) struct Assignment {
    /// A UUID, or any other string. If absent, the tenant, the request, the experiment, the variant
    /// and the user make a repeated assignment a duplicate, together with `ts`.
    #[schema(max_length = 200)]
    event_id: Option<String>,
    #[schema(min_length = 1, max_length = 512)]
    experiment_id: String,
    #[schema(min_length = 1, max_length = 512)]
    variant: String,
    /// The id of the recommendation request, which joins it with its exposure.
    #[schema(min_length = 1, max_length = 512)]
    request_id: String,
    /// Raw, of which only the keyed hash is stored, or that hash. The request's id means that the
    /// user is not known.
    user_id: Option<String>,
    /// RFC 3339 with an offset; the time of receipt if absent. Part of the event's identity: repeat
    /// it unchanged when you retry.
    #[schema(format = DateTime)]
    ts: Option<String>,
    /// By what reports are sliced; `surface` is a column, too.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    context: Option<()>,
    /// Another tenant than the key's own: only with the role `service`.
    #[schema(max_length = 200)]
    tenant_id: Option<String>,
}

/// One of several items of an interaction; further members are kept in `meta.extra.items`.
#[derive(Serialize, ToSchema)]
pub(crate) struct InteractionItem {
    #[schema(min_length = 1, max_length = 512)]
    item_id: String,
    /// Its place in the list.
    #[schema(minimum = 0)]
    position: Option<i32>,
    /// How many; 1 if absent. Kept in `meta.quantity`.
    #[schema(exclusive_minimum = -1_000_000_000_000.0, exclusive_maximum = 1_000_000_000_000.0)]
    quantity: Option<f64>,
    /// Of one. Kept in `meta.price`.
    #[schema(exclusive_minimum = -1_000_000_000_000.0, exclusive_maximum = 1_000_000_000_000.0)]
    price: Option<f64>,
    /// The row's value; if absent, it is `price` times `quantity`, exactly, rounded to six decimals.
    #[schema(exclusive_minimum = -1_000_000_000_000.0, exclusive_maximum = 1_000_000_000_000.0)]
    value: Option<f64>,
}

/// The order that the items belong to. Kept whole in the `meta.order` of each row, and in no
/// column, so that its value is not counted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Order {
    #[schema(min_length = 1, max_length = 512)]
    id: String,
    #[schema(exclusive_minimum = -1_000_000_000_000.0, exclusive_maximum = 1_000_000_000_000.0)]
    value: Option<f64>,
    #[schema(max_length = 512, example = "EUR")]
    currency: Option<String>,
}
