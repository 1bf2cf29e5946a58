//! What the endpoints of events share: bodies in every framing, parameters, headers, and each
//! status with its codes. Works on the document as JSON, which says it in the words of OpenAPI.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::event::format::Format;
use crate::event::interaction::{CONVERSION, LABELS};
use crate::event::table::Table;
use crate::http::codes::{PROBLEM_KINDS, ProblemKind, Scope};
use crate::http::ingest::ack::{Ack, NOTHING_REACHED};
use crate::http::routes::{Audience, ROUTES, Route, path};

/// The description of a body. Forms are here and not among the contents: from there, generated clients
/// would encode events as one.
const BODY: &str = "One event, an array of events, `{\"events\": […], \"sent_at\": …}`, or one event a line \
(`application/x-ndjson`; also `text/plain`, as beacons send it). JSON that is labelled \
`application/x-www-form-urlencoded`, as `curl -d` does it, is taken, too, and a form is not. `Content-Encoding` may be gzip, deflate, zstd or br. \
An answer has at most three times the bytes of the body, decompressed, and 4 KiB: the first hundred verdicts at most stand \
one by one, the others are summed up by code, with their places in the body.";

/// Completes the document.
pub(super) fn complete(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    for table in Table::ALL {
        batch(schemas, table);
    }
    let event_types: Vec<_> = LABELS.into_iter().chain([CONVERSION]).collect();
    schemas["Interaction"]["properties"]["event_type"]["enum"] = json!(event_types);
    document["components"]["headers"] = headers();
    // Once for all; those that need no key say so.
    document["security"] = Value::Array(ways_to_send_a_key());
    for table in Table::ALL {
        let post = &mut document["paths"][path(table)]["post"];
        events(post, table);
    }
    for route in ROUTES
        .iter()
        .filter(|route| route.audience != Audience::Senders)
    {
        if let Some(get) = document["paths"]
            .get_mut(route.path)
            .and_then(|path| path.get_mut("get"))
        {
            monitoring(get, route);
        }
    }
}

pub(super) fn acks() -> [&'static str; 3] {
    [Ack::Received, Ack::Durable, Ack::Committed].map(Ack::as_str)
}

/// What an answer says was reached: a level, or nothing with `?validate=true`.
pub(super) fn reached() -> Vec<&'static str> {
    acks().into_iter().chain([NOTHING_REACHED]).collect()
}

/// The security schemes, of which one is enough.
fn ways_to_send_a_key() -> Vec<Value> {
    ["api_key", "bearer", "basic", "query_key"]
        .map(|scheme| json!({scheme: []}))
        .into()
}

/// The name of the schema of a table's events.
fn schema(table: Table) -> &'static str {
    match table {
        Table::Exposures => "Exposure",
        Table::Interactions => "Interaction",
        Table::Assignments => "Assignment",
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Adds the schemas of several events, in an array and in an envelope, and of a body.
fn batch(schemas: &mut Value, table: Table) {
    let one = schema(table);
    schemas[format!("{one}List")] = json!({
        "type": "array",
        "description": "Several events; at most `--events-max` (10,000).",
        "items": reference(one),
        "minItems": 1,
    });
    schemas[format!("{one}Batch")] = json!({
        "type": "object",
        "description": "Several events, and when the client sent them: the skew of its clock is kept in `meta`.",
        "required": ["events"],
        "properties": {
            "events": reference(&format!("{one}List")),
            "sent_at": {
                "type": "string",
                "format": "date-time",
                "description": "The client's time when it sent the body, RFC 3339 with an offset.",
            },
        },
    });
    // As a named schema: some generators lose the forms of a body that is described in place.
    schemas[format!("{one}Body")] = json!({
        "description": "A body in JSON.",
        "oneOf": [
            reference(one),
            reference(&format!("{one}List")),
            reference(&format!("{one}Batch")),
        ],
    });
}

/// Describes the POST of a table's events.
fn events(post: &mut Value, table: Table) {
    let one = schema(table);
    let (first, second) = examples(table);
    let lines = format!("{first}\n{second}\n");
    let single = json!({"summary": "One event", "value": first});
    let several = json!({"summary": "Several events", "value": [first, second]});
    let envelope =
        json!({"summary": "Several events in an envelope", "value": {"events": [first, second]}});
    let text = json!({
        "type": "string",
        "description": format!("One `{one}` a line; empty lines are skipped."),
    });
    let by_line = json!({"lines": {"summary": "One event a line", "value": lines}});
    post["requestBody"] = json!({
        "description": BODY,
        "required": true,
        "content": {
            "application/json": {
                "schema": reference(&format!("{one}Body")),
                "examples": {"one": single, "several": several, "envelope": envelope},
            },
            "application/x-ndjson": {"schema": text, "examples": by_line},
            "text/plain": {
                "schema": {"type": "string", "description": "Any of the framings, as beacons send it."},
                "examples": {
                    "lines": by_line["lines"],
                    "json": {"summary": "JSON", "value": json!([first]).to_string()},
                },
            },
        },
    });
    parameters(post, table);
    let taken = |description: &str| {
        json!({
            "description": description,
            "headers": {"X-Request-Id": header("X-Request-Id"), "X-Ingest-Ack": header("X-Ingest-Ack")},
            "content": {"application/json": {"schema": reference("Answer")}},
        })
    };
    let mut responses = problems(&[
        Scope::Any,
        Scope::Placed,
        Scope::Events,
        Scope::Keyed,
        Scope::Operators,
    ]);
    responses.insert("200".to_owned(), taken("Committed in Postgres"));
    responses.insert(
        "202".to_owned(),
        taken("Taken on; `ack` says which level was reached"),
    );
    post["responses"] = Value::Object(responses);
}

/// Adds what a request says in addition to its body.
fn parameters(post: &mut Value, table: Table) {
    let mut all = post["parameters"].as_array().cloned().unwrap_or_default();
    // The key is a security scheme.
    all.retain(|parameter| parameter["name"] != "key");
    for parameter in &mut all {
        match parameter["name"].as_str() {
            Some("ack") => parameter["schema"] = json!({"type": "string", "enum": acks()}),
            Some("format") => {
                let formats = Format::ALL.into_iter().filter(|format| format.fits(table));
                let formats: Vec<_> = formats.map(Format::as_str).collect();
                parameter["schema"] = json!({"type": "string", "enum": formats});
            }
            _ => {}
        }
    }
    let in_header = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    all.extend([
        in_header(
            "X-Request-Id",
            "An id of the caller's, which the answer repeats: up to 128 visible ASCII characters. Another one is replaced.",
            json!({"type": "string"}),
        ),
        in_header(
            "X-Org-Id",
            "The tenant of events that name none, by external id or UUID. Another one than the key's own: only with the role `service`.",
            json!({"type": "string"}),
        ),
        in_header(
            "Content-Encoding",
            "How the body is compressed.",
            json!({"type": "string", "enum": ["gzip", "deflate", "zstd", "br", "identity"]}),
        ),
    ]);
    post["parameters"] = Value::Array(all);
}

/// Describes what a GET for operators answers in addition to its own statuses.
fn monitoring(get: &mut Value, route: &Route) {
    let mut scopes = vec![Scope::Any];
    if route.audience != Audience::Balancers {
        scopes.push(Scope::Operators);
    }
    match route.audience {
        Audience::Operators => {
            scopes.extend([Scope::Placed, Scope::Keyed]);
            let mut ways = ways_to_send_a_key();
            // `dev` asks for none.
            ways.push(json!({}));
            get["security"] = Value::Array(ways);
            // The key is a security scheme.
            if let Some(parameters) = get["parameters"].as_array_mut() {
                parameters.retain(|parameter| parameter["name"] != "key");
            }
        }
        _ => get["security"] = json!([]),
    }
    let own = get["responses"].take();
    let mut responses = problems(&scopes);
    for (status, mut response) in own
        .as_object()
        .into_iter()
        .flatten()
        .map(|(a, b)| (a.clone(), b.clone()))
    {
        response["headers"] = json!({"X-Request-Id": header("X-Request-Id")});
        responses.insert(status, response);
    }
    get["responses"] = Value::Object(responses);
}

pub(super) fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// The headers of answers.
fn headers() -> Value {
    let text =
        |description: &str| json!({"description": description, "schema": {"type": "string"}});
    json!({
        "X-Request-Id": text("The request's id: the caller's, or one that was made."),
        "X-Ingest-Ack": {
            "description": "The level that was reached, as `ack` in the body.",
            "schema": {"type": "string", "enum": reached()},
        },
        "RateLimit": text("What is left of each limit, where one applies (draft-ietf-httpapi-ratelimit-headers)."),
        "RateLimit-Policy": text("The limits that apply."),
        "Retry-After": {
            "description": "Seconds after which to try again.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "WWW-Authenticate": text("How a key may be sent."),
        "Allow": text("The methods that the path takes."),
    })
}

/// The problems that a request may meet, by status.
fn problems(scopes: &[Scope]) -> Map<String, Value> {
    problems_with(scopes, |status| status)
}

/// The same, where another status is answered for some.
pub(super) fn problems_with(scopes: &[Scope], answered: impl Fn(u16) -> u16) -> Map<String, Value> {
    let met = PROBLEM_KINDS.iter().filter(|kind| kind.is_met_by(scopes));
    problems_of(met, answered)
}

/// Kinds of problems, by the status that is answered.
pub(super) fn problems_of<'k>(
    kinds: impl Iterator<Item = &'k ProblemKind>,
    answered: impl Fn(u16) -> u16,
) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for kind in kinds {
        let line = format!("- `{}`: {} {}", kind.code, kind.meaning, kind.remedy);
        by_status
            .entry(answered(kind.status))
            .or_default()
            .push(line);
    }
    let mut responses: Map<String, Value> = by_status
        .into_iter()
        .map(|(status, lines)| (status.to_string(), problem(status, &lines.join("\n"))))
        .collect();
    responses.insert(
        "431".to_owned(),
        json!({"description": "The head of the request is larger than 32 KiB; the answer has no body."}),
    );
    responses
}

fn problem(status: u16, description: &str) -> Value {
    let mut headers = json!({"X-Request-Id": header("X-Request-Id")});
    match status {
        401 => headers["WWW-Authenticate"] = header("WWW-Authenticate"),
        405 => headers["Allow"] = header("Allow"),
        429 => {
            for name in ["Retry-After", "RateLimit", "RateLimit-Policy"] {
                headers[name] = header(name);
            }
        }
        503 => headers["Retry-After"] = header("Retry-After"),
        _ => {}
    }
    json!({
        "description": description,
        "headers": headers,
        "content": {"application/problem+json": {"schema": reference("ProblemBody")}},
    })
}

/// Two events of a table that are valid at any time: they name none.
fn examples(table: Table) -> (Value, Value) {
    match table {
        Table::Exposures => (
            json!({
                "request_id": "req-1",
                "surface": "home",
                "user_id": "ada",
                "items": [{"item_id": "book", "rank": 1, "score": 0.92}, {"item_id": "lamp", "rank": 2}],
            }),
            json!({"request_id": "req-2", "surface": "cart", "items": [{"item_id": "lamp"}]}),
        ),
        Table::Interactions => (
            json!({
                "request_id": "req-1",
                "user_id": "ada",
                "event_type": "click",
                "item_id": "lamp",
                "position": 2,
            }),
            json!({
                "request_id": "req-1",
                "user_id": "ada",
                "event_type": "purchase",
                "item_id": "lamp",
                "value": 19.9,
            }),
        ),
        Table::Assignments => (
            json!({
                "experiment_id": "ranking",
                "variant": "B",
                "request_id": "req-1",
                "user_id": "ada",
                "context": {"surface": "home", "device": "web"},
            }),
            json!({"experiment_id": "layout", "variant": "A", "request_id": "req-1", "user_id": "ada"}),
        ),
    }
}
