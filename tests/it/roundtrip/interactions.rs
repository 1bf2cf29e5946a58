//! Interactions with hostile values.

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    BODY, EVENTS, any_json, assert_json_equal, filled, hashed, hostile, occurred, path_safe,
    rows_by_id, shown_time, spelled, stored_request, time,
};
use crate::harness::{DEMO, Service, generated};

#[derive(Clone, Debug)]
struct Interaction {
    at: i64,
    item: String,
    request: Option<String>,
    user: Option<String>,
    session: Option<String>,
    surface: Option<String>,
    segment: Option<String>,
    position: Option<i32>,
    micros: Option<i64>,
    note: Value,
}

fn interactions() -> impl Strategy<Value = Interaction> {
    use proptest::option::of;
    let position = prop_oneof![Just(0), Just(i32::MAX), 0..=i32::MAX];
    let limit = 1_000_000_000_000_000_000_i64;
    let micros = prop_oneof![
        -limit + 1..limit,
        -1_000_000..1_000_000_i64,
        Just(limit - 1),
        Just(1 - limit),
        (0..12_u32).prop_map(|n| 10_i64.pow(n)),
    ];
    (
        (
            occurred(),
            filled(),
            of(filled()),
            of(hostile()),
            of(hostile()),
        ),
        (
            of(path_safe()),
            of(path_safe()),
            of(position),
            of(micros),
            any_json(),
        ),
    )
        .prop_map(
            |((at, item, request, user, session), (surface, segment, position, micros, note))| {
                Interaction {
                    at,
                    item,
                    request,
                    user,
                    session,
                    surface,
                    segment,
                    position,
                    micros,
                    note,
                }
            },
        )
}

/// Millionths as a decimal, without a detour through a float.
fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, rest) = (
        micros.unsigned_abs() / 1_000_000,
        micros.unsigned_abs() % 1_000_000,
    );
    format!("{sign}{whole}.{rest:06}")
}

#[tokio::test]
async fn hostile_interactions_read_back_as_they_were_sent() {
    let service = Service::start().await;
    let sent = generated(interactions(), EVENTS);
    let id = |n: usize| Uuid::from_u128(n as u128 + 1).to_string();
    let events: Vec<Value> = sent
        .iter()
        .enumerate()
        .map(|(n, e)| {
            let mut event = json!({
                "event_id": id(n), "occurred_at": time(e.at).to_string(), "event_type": "view",
                "item_id": e.item, "request_id": e.request, "user_id": e.user,
                "session_id": e.session, "surface": e.surface, "segment": e.segment,
                "position": e.position, "meta": {"note": e.note}
            });
            // serde_json would make a float of the value: a placeholder is replaced in the text
            // below.
            if e.micros.is_some() {
                event["value"] = json!(format!("@{n}@"));
            }
            event
        })
        .collect();
    // Values are written as text, so that they never become floats.
    for (n, portion) in events.chunks(BODY).enumerate() {
        let texts: Vec<String> = portion
            .iter()
            .zip(&sent[n * BODY..])
            .zip(n * BODY..)
            .map(|((event, e), at)| {
                let text = spelled(event, at as u64);
                match e.micros {
                    Some(micros) => text.replace(&format!("\"@{at}@\""), &decimal(micros)),
                    None => text,
                }
            })
            .collect();
        let body = format!("[{}]", texts.join(","));
        let reply = service.client().post_bytes("/v1/interactions", body).await;
        assert_eq!(
            reply.settled(),
            (portion.len() as u64, 0, 0, 0),
            "{}",
            reply.text
        );
    }

    let found = rows_by_id(&service, "interaction_events").await;
    assert_eq!(found.len(), EVENTS);
    for (n, e) in sent.iter().enumerate() {
        let row = &found[&id(n)];
        let user = hashed(e.user.as_ref()).map(|hash| format!("\\x{hash}"));
        let mut meta = row["meta"].clone();
        let note = meta["note"].take();
        assert_eq!(
            json!(row),
            json!({
                "tenant_id": DEMO, "event_id": id(n), "occurred_at": shown_time(time(e.at)),
                "request_id": e.request.as_deref().map(stored_request), "user_key": user,
                "session_id": hashed(e.session.as_ref()), "surface": e.surface,
                "segment": e.segment, "event_type": "view", "item_id": e.item,
                "position": e.position.map(|p| p.to_string()), "value": e.micros.map(decimal),
                "meta": row["meta"]
            }),
        );
        assert_eq!(strings(&note), strings(&e.note));
        let raw = e
            .request
            .as_ref()
            .filter(|named| Uuid::try_parse(named).is_err());
        assert_eq!(meta["request_id"].as_str(), raw.map(String::as_str));
    }
    let notes = sent.iter().map(|e| e.note.to_string());
    assert_json_equal(
        &service,
        "interaction_events",
        "meta->'note'",
        notes.collect(),
    )
    .await;
}

/// All strings and member names of a JSON value, in order.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| [vec![name.clone()], strings(value)].concat())
            .collect(),
        _ => Vec::new(),
    }
}
