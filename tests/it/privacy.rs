//! Promise: a raw user, anonymous or session id is never stored, in any field.

use serde_json::{Value, json};

use crate::harness::{Service, texts};

const RAW: [&str; 3] = ["raw-user-7", "raw-visitor-7", "raw-session-7"];

/// Raw ids under their names.
fn ids() -> Value {
    json!({"user_id": RAW[0], "anonymous_id": RAW[1], "session_id": RAW[2]})
}

/// `event` with raw ids as top-level fields.
fn with_ids(mut event: Value) -> Value {
    for (name, value) in ids().as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// Exposures of all formats, with raw ids in each field that can hold one.
fn exposures() -> Value {
    let at = "2026-03-10T08:00:00Z";
    let nested = json!({"user": ids(), "subject": ids(), "deep": [{"user": ids()}, [ids()]]});
    let item = json!({"item_id": "a", "rank": 1, "user_id": RAW[0], "for": ids()});
    json!([
        with_ids(json!({
            "occurred_at": at, "request_id": "r1", "surface": "home", "items": [item],
            "context": ids(), "experiment": {"id": "x", "user_id": RAW[0]},
            "request": nested, "meta": nested, "viewer": ids(), "subject": ids()
        })),
        with_ids(json!({
            "schema_version": "v1", "timestamp": at, "request_id": "r2", "surface": "home",
            "subject": ids(), "context": nested, "experiment": {"id": "x", "user_id": RAW[0]},
            "items": [item], "request": nested
        })),
        {
            "ts": at, "request_id": "r3", "user_id": RAW[0], "items": [item], "error": nested,
            "context": {"surface": "home", "user_id": RAW[0], "session_id": RAW[2], "more": nested},
            "request": nested
        },
        {
            "v": 1, "ts": at, "surface": "home", "session_id": RAW[2], "user_id": RAW[0],
            "request_id": "r4", "item_id": "a", "anonymous_id": RAW[1], "request": nested
        },
        {
            "v": 1, "ts": at, "surface": "home", "session_id": RAW[2], "user_id": RAW[0],
            "item_id": "a"
        }
    ])
}

fn interactions() -> Value {
    let at = "2026-03-10T08:00:00Z";
    let nested = json!({"user": ids(), "deep": {"deeper": [ids()]}});
    json!([
        with_ids(json!({
            "occurred_at": at, "event_type": "view", "item_id": "a", "meta": nested, "who": nested
        })),
        {
            "ts": at, "event_type": "click", "item_id": "a", "user_id": RAW[0], "request_id": "r1",
            "anonymous_id": RAW[1], "session_id": RAW[2], "more": nested
        }
    ])
}

#[tokio::test]
async fn no_raw_id_is_in_any_column_of_any_table() {
    let service = Service::start().await;
    service
        .database
        .execute(
            "ALTER TABLE interaction_events ADD CHECK (item_id <> 'poison');
             ALTER TABLE exposure_events ADD CHECK (surface <> 'poison')",
        )
        .await;
    let reply = service.exposures(&exposures()).await;
    assert_eq!(reply.settled(), (5, 0, 0, 0), "{}", reply.text);
    let reply = service.interactions(&interactions()).await;
    assert_eq!(reply.settled(), (2, 0, 0, 0), "{}", reply.text);
    // Rows that PostgreSQL refuses are stored in quarantine.
    let text = interactions().to_string();
    let poisoned = text.replace("\"item_id\":\"a\"", "\"item_id\":\"poison\"");
    let reply = service
        .client()
        .post_bytes("/v1/interactions", poisoned)
        .await;
    assert_eq!(reply.settled(), (0, 0, 2, 0), "{}", reply.text);
    let poisoned = exposures().to_string().replace("\"home\"", "\"poison\"");
    let reply = service.client().post_bytes("/v1/exposures", poisoned).await;
    assert_eq!(reply.settled().2, 5, "{}", reply.text);

    let client = service.database.connect().await;
    for table in ["exposure_events", "interaction_events", "ingest_quarantine"] {
        let rows = texts(&client, &format!("SELECT t::text FROM {table} t")).await;
        assert!(!rows.is_empty());
        for row in rows {
            for raw in RAW {
                assert!(!row.contains(raw), "{raw} in {table}: {row}");
            }
        }
    }
    let hashed: i64 = crate::harness::one(
        &client,
        "SELECT count(*) FROM exposure_events WHERE user_key IS NOT NULL AND session_id IS NOT NULL",
    )
    .await;
    assert_eq!(hashed, 5);
}
