//! `OPTIONS` at the endpoints of events: what a browser asks before a page of another origin posts.

use serde_json::{Value, json};

use super::operations::{header, problems_of};
use crate::http::codes::{PROBLEM_KINDS, Scope};
use crate::http::routes::{Posts, ROUTES, SEGMENT_ROUTES};

/// Codes of the problems that the check of a page's origin gives.
const CODES: [&str; 2] = ["origin_not_allowed", "keys_unavailable"];

/// Describes it for every path of the document that events are posted to.
pub(super) fn complete(document: &mut Value) {
    for route in ROUTES.iter().chain(&SEGMENT_ROUTES) {
        let tag = match route.posts {
            Some(Posts::Events(_)) => "events",
            Some(Posts::Messages(_)) => "segment",
            None => continue,
        };
        // Short forms of other paths are not in the document.
        if let Some(path) = document["paths"].get_mut(route.path) {
            path["options"] = options(route.path, tag);
        }
    }
}

fn options(path: &str, tag: &str) -> Value {
    let name = path.trim_start_matches("/v1/");
    let text =
        |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let met = PROBLEM_KINDS
        .iter()
        .filter(|kind| kind.is_met_by(&[Scope::Any, Scope::Placed]) || CODES.contains(&kind.code));
    let mut responses = problems_of(met, |status| status);
    responses.insert(
        "204".to_owned(),
        json!({
            "description": "The methods, and for a preflight of an origin that some key, some tenant or the service lists, what a page may send",
            "headers": {
                "X-Request-Id": header("X-Request-Id"),
                "Allow": header("Allow"),
                "Access-Control-Allow-Origin": text("The origin that asks."),
                "Access-Control-Allow-Methods": text("POST."),
                "Access-Control-Allow-Headers": text("The headers that a page may send."),
                "Access-Control-Allow-Credentials": text("true: beacons are always sent with credentials."),
                "Access-Control-Max-Age": text("Seconds for which a browser may keep the answer."),
            },
        }),
    );
    json!({
        "tags": [tag],
        "operationId": format!("preflight_{name}"),
        "summary": "Answers a browser's preflight.",
        "description": "A browser sends it by itself, with `Origin`, `Access-Control-Request-Method` and `Access-Control-Request-Headers`, and without a key. Origins are listed for a key, a tenant or the service (`--cors-origins`).",
        "security": [],
        "responses": responses,
    })
}
