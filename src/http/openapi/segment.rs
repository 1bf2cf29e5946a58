//! The routes of Segment's shape. They have no handlers that the router knows, so all of it is said
//! here; the short forms and those below a prefix are the same.

use serde_json::{Value, json};

use super::operations::{acks, header, problems_with, reference};
use crate::event::formats::segment::rules::{Call, Type};
use crate::http::codes::Scope;
use crate::http::routes::{Posts, SEGMENT_ROUTES};

/// The longest of the short forms.
const SHORT: usize = "/v1/b".len();

/// Describes them.
pub(super) fn complete(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    schemas["SegmentMessage"] = json!({
        "type": "object",
        "description": "A message as Segment's and RudderStack's libraries write it. Members that are not listed are not kept.",
        "properties": {
            "type": {"type": "string", "description": "In a batch: track, or a type that is not collected (identify, page, …)."},
            "event": {"type": "string", "description": "Product Viewed, Product Clicked, Product Added, Order Completed, Product List Viewed, or a name that the tenant's settings map. Others are not collected."},
            "messageId": {"type": "string", "description": "Makes a repeated message a duplicate, together with its time."},
            "timestamp": {"type": "string", "format": "date-time", "description": "RFC 3339 with an offset; else originalTimestamp."},
            "userId": {"type": "string", "description": "Only its keyed hash is stored."},
            "anonymousId": {"type": "string", "description": "Only its keyed hash is stored."},
            "properties": {"type": "object", "additionalProperties": true, "description": "product_id, products, position, price, quantity, value, order_id, revenue, currency, surface, request_id."},
            "context": {"type": "object", "additionalProperties": true, "description": "Of which sessionId alone is used, and stored as a hash."},
            "writeKey": {"type": "string", "description": "The API key, where the request has none in its head; not with the role service, and in bodies of at most 512 KiB."},
        },
    });
    schemas["SegmentBatch"] = json!({
        "type": "object",
        "description": "Several messages.",
        "required": ["batch"],
        "properties": {
            "batch": {"type": "array", "items": reference("SegmentMessage")},
            "writeKey": {"type": "string", "description": "As in a message."},
        },
    });
    for route in SEGMENT_ROUTES
        .iter()
        .filter(|route| route.path.len() > SHORT)
    {
        let Some(Posts::Messages(call)) = route.posts else {
            continue;
        };
        document["paths"][route.path] = json!({"post": post(route.path, call)});
    }
}

fn post(path: &str, call: Call) -> Value {
    let name = path.trim_start_matches("/v1/");
    let track = json!({"type": "track", "event": "Product Clicked", "messageId": "m-1", "userId": "ada",
        "properties": {"product_id": "lamp", "position": 2, "request_id": "req-1", "surface": "home"}});
    let (schema, example) = match call {
        Call::Batch => (
            "SegmentBatch",
            json!({"batch": [track, {"type": "identify", "userId": "ada"}]}),
        ),
        Call::One(Type::Track) => ("SegmentMessage", track),
        Call::One(_) => (
            "SegmentMessage",
            json!({"userId": "ada", "messageId": "m-2"}),
        ),
    };
    let summary = match call {
        Call::Batch => "Takes messages of Segment's libraries.",
        Call::One(Type::Track) => "Takes one message of the type track.",
        Call::One(_) => "Takes one message, which is counted and not kept.",
    };
    let taken = |description: &str| {
        json!({
            "description": description,
            "headers": {"X-Request-Id": header("X-Request-Id"), "X-Ingest-Ack": header("X-Ingest-Ack")},
            "content": {"application/json": {"schema": reference("Collected")}},
        })
    };
    let scopes = [
        Scope::Any,
        Scope::Placed,
        Scope::Events,
        Scope::Keyed,
        Scope::Operators,
    ];
    // Where there is no room: those clients wait for a 429.
    let mut responses = problems_with(&scopes, |status| match status {
        503 => 429,
        other => other,
    });
    responses.insert(
        "200".to_owned(),
        taken("As 202, for libraries that take 200 alone for success"),
    );
    responses.insert(
        "202".to_owned(),
        taken("Taken on; `ack` says which level was reached"),
    );
    json!({
        "tags": ["segment"],
        "operationId": format!("segment_{name}"),
        "summary": summary,
        "description": "The body is JSON, whatever Content-Type says; `Content-Encoding` may be gzip, deflate, zstd or br. What becomes what is in docs/segment.md.",
        "parameters": [
            {"name": "ack", "in": "query", "required": false, "description": "What the answer waits for.", "schema": {"type": "string", "enum": acks()}},
            {"name": "X-Org-Id", "in": "header", "required": false, "description": "The tenant, for a key with the role `service`.", "schema": {"type": "string"}},
        ],
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": reference(schema), "examples": {"one": {"summary": "As a library posts it", "value": example}}}},
        },
        "responses": responses,
    })
}
