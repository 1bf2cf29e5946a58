//! Native events, and what all formats share.

use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use serde_json::json;

use super::{
    A_UUID, ANON, ETAG, EVT_1, R1, REQ_1, SESSION, USER, bytes, exposures, interactions,
    take_made_id,
};
use crate::harness::{DEMO, Database, PEPPER, Service, one, rows, rows_as_text};

#[tokio::test]
async fn a_native_exposure_with_every_field() {
    let event = json!({
        "event_id": "evt-1",
        "occurred_at": "2026-03-10T09:15:30.123456789+02:00",
        "request_id": "r1",
        "surface": "home",
        "segment": "vip",
        "user_id": " user\n",
        "anonymous_id": "anon-1",
        "session_id": "session-1",
        "experiment": {"id": "exp-1", "variant": "B", "arm": 2},
        "algo_version": "recsys-algo@1.2",
        "config_version": format!("W/\"{ETAG}\""),
        "rules_version": format!("\"{ETAG}\""),
        "context": {"locale": "de-DE", "device": "mobile"},
        "items": [
            {"item_id": "a", "rank": 1, "score": 0.5, "reasons": ["popular"]},
            {"item_id": "b", "propensity": 0.25},
            {"item_id": "c", "rank": null}
        ],
        "meta": {"source": "rendered", "page": 3, "schema": "mine"},
        "tenant_id": "demo",
        "campaign": "spring"
    });
    let found = exposures(&event, Role::Ingest).await;
    let expected = json!({
        "tenant_id": DEMO,
        "occurred_at": "2026-03-10 07:15:30.123456+00",
        "event_id": EVT_1,
        "request_id": R1,
        "surface": "home",
        "segment": "vip",
        "user_key": bytes(USER),
        "session_id": SESSION,
        "experiment_id": "exp-1",
        "experiment_variant": "B",
        "algo_version": "recsys-algo@1.2",
        "config_etag": ETAG,
        "rules_etag": ETAG,
        "request": {
            "surface": "home", "segment": "vip",
            "context": {"locale": "de-DE", "device": "mobile"},
            "experiment": {"id": "exp-1", "variant": "B", "arm": 2}
        },
        "response": {"items": [
            {"item_id": "a", "rank": 1, "score": 0.5, "reasons": ["popular"]},
            {"item_id": "b", "rank": 2, "propensity": 0.25},
            {"item_id": "c", "rank": 3}
        ]},
        "meta": {
            "source": "rendered", "schema": "native", "page": 3, "request_id": "r1",
            "subject_kind": "user", "anonymous_id_hash": ANON,
            "extra": {"campaign": "spring", "meta": {"schema": "mine"}}
        }
    });
    assert_eq!(json!(found), json!([expected]));
}

#[tokio::test]
async fn a_native_exposure_with_as_little_as_can_be() {
    let event = json!({"request_id": A_UUID, "surface": "home", "items": []});
    let mut found = exposures(&event, Role::Ingest).await;
    take_made_id(&mut found[0], 7);
    drop(found[0].remove("occurred_at"));
    let expected = json!({
        "tenant_id": DEMO,
        "request_id": A_UUID,
        "surface": "home",
        "segment": "default",
        "user_key": null,
        "session_id": A_UUID,
        "experiment_id": null,
        "experiment_variant": null,
        "algo_version": "unknown",
        "config_etag": null,
        "rules_etag": null,
        "request": {"surface": "home"},
        "response": {"items": []},
        "meta": {"source": "ingest", "schema": "native"}
    });
    assert_eq!(json!(found), json!([expected]));
}

#[tokio::test]
async fn a_native_exposure_with_the_suites_request_keeps_it_with_hashes_for_ids() {
    let event = json!({
        "event_id": A_UUID, "occurred_at": "2026-03-10T08:00:00Z", "request_id": "req-1",
        "surface": "home", "anonymous_id_hash": ANON.to_uppercase(), "items": [],
        "context": {"locale": "en"},
        "request": {
            "surface": "home", "k": 20, "context": {"locale": "fr"},
            "user": {"user_id": "user", "anonymous_id": "anon-1", "session_id": "session-1"}
        }
    });
    let found = exposures(&event, Role::Service).await;
    let row = &found[0];
    assert_eq!(row["event_id"], A_UUID);
    assert_eq!(row["request_id"], REQ_1);
    assert_eq!(row["user_key"], bytes(ANON));
    assert_eq!(row["session_id"], "req-1");
    assert_eq!(
        row["request"],
        json!({
            "surface": "home", "k": 20, "context": {"locale": "fr"},
            "user": {"user_id_hash": USER, "anonymous_id_hash": ANON, "session_id_hash": SESSION}
        })
    );
    assert_eq!(
        row["meta"],
        json!({
            "source": "service", "schema": "native", "request_id": "req-1",
            "subject_kind": "anonymous", "extra": {"context": {"locale": "en"}}
        })
    );
}

#[tokio::test]
async fn a_native_interaction_with_every_field() {
    let event = json!({
        "event_id": "evt-1",
        "occurred_at": "2026-03-10T08:00:00.000001Z",
        "request_id": "r1",
        "user_id": "user",
        "anonymous_id": "anon-1",
        "session_id": "session-1",
        "surface": "home",
        "segment": "vip",
        "event_type": "purchase",
        "item_id": "Größe 42 / \"x\" \u{1F600}",
        "position": 2_147_483_647,
        "value": 19.9,
        "meta": {"currency": "EUR", "request_id": "theirs"},
        "tenant": DEMO,
        "page": {"url": "x"}
    });
    let found = interactions(&event).await;
    let expected = json!({
        "tenant_id": DEMO,
        "occurred_at": "2026-03-10 08:00:00.000001+00",
        "event_id": EVT_1,
        "request_id": R1,
        "user_key": bytes(USER),
        "session_id": SESSION,
        "surface": "home",
        "segment": "vip",
        "event_type": "purchase",
        "item_id": "Größe 42 / \"x\" \u{1F600}",
        "position": "2147483647",
        "value": "19.900000",
        "meta": {
            "currency": "EUR", "request_id": "r1", "anonymous_id_hash": ANON,
            "extra": {"page": {"url": "x"}, "meta": {"request_id": "theirs"}}
        }
    });
    assert_eq!(json!(found), json!([expected]));
}

#[tokio::test]
async fn a_native_interaction_with_as_little_as_can_be() {
    let event = json!({"event_type": "view", "item_id": "a", "value": null, "meta": {}});
    let mut found = interactions(&event).await;
    take_made_id(&mut found[0], 7);
    drop(found[0].remove("occurred_at"));
    let expected = json!({
        "tenant_id": DEMO, "request_id": null, "user_key": null, "session_id": null,
        "surface": null, "segment": null, "event_type": "view", "item_id": "a",
        "position": null, "value": null, "meta": null
    });
    assert_eq!(json!(found), json!([expected]));
}

#[tokio::test]
async fn every_event_type_and_its_other_name() {
    let names = [
        "impression", "view", "click", "add_to_cart", "purchase", "conversion",
    ];
    let events: Vec<_> = names
        .iter()
        .map(|name| json!({"event_type": name, "item_id": name, "occurred_at": "2026-03-10T08:00:00Z"}))
        .collect();
    let mut found: Vec<_> = interactions(&json!(events))
        .await
        .iter()
        .map(|row| format!("{}={}", row["item_id"], row["event_type"]).replace('"', ""))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "add_to_cart=add_to_cart",
            "click=click",
            "conversion=purchase",
            "impression=impression",
            "purchase=purchase",
            "view=view"
        ]
    );
}

#[tokio::test]
async fn an_event_without_a_time_has_its_ids_or_that_of_its_arrival() {
    let events = json!([
        // Version 7, generated at 2026-03-10T08:00:00.123Z.
        {"event_id": "019cd6c2-8c7b-7000-8000-000000000001", "event_type": "view", "item_id": "v7"},
        {"event_id": "named", "event_type": "view", "item_id": "now"},
        {"event_type": "view", "item_id": "neither"}
    ]);
    let service = Service::start().await;
    assert_eq!(service.interactions(&events).await.settled(), (3, 0, 0, 0));
    let sql = "SELECT item_id, occurred_at = received_at AS on_arrival, occurred_at
                 FROM interaction_events ORDER BY occurred_at, item_id";
    let found = rows_as_text(&service.database, sql).await;
    assert_eq!(found[0]["item_id"], "v7");
    assert_eq!(found[0]["occurred_at"], "2026-03-10 08:00:00.123+00");
    for row in &found[1..] {
        assert_eq!(row["on_arrival"], "t", "{row:?}");
    }
}

#[tokio::test]
async fn the_skew_of_a_senders_clock_is_measured_and_not_applied() {
    let service = Service::start().await;
    let behind = jiff::Timestamp::now() - std::time::Duration::from_secs(3600);
    let body = json!({
        "sent_at": behind.to_string(),
        "events": [{"event_type": "view", "item_id": "a", "occurred_at": "2026-03-10T08:00:00Z"}]
    });
    assert_eq!(service.interactions(&body).await.settled(), (1, 0, 0, 0));
    let found = rows(&service.database, "interaction_events").await;
    assert_eq!(found[0]["occurred_at"], "2026-03-10 08:00:00+00");
    let skew_ms = found[0]["meta"]["skew_ms"].as_i64().unwrap();
    assert!((3_600_000..3_660_000).contains(&skew_ms), "{skew_ms}");
}

#[tokio::test]
async fn api_keys_are_stored_as_the_suite_stores_them() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
    admin::keys::insert_key(
        &client,
        &hasher,
        "demo",
        Some("vector"),
        &[Role::Ingest],
        "secret",
    )
    .await
    .unwrap();
    let stored: String = one(
        &client,
        "SELECT key_hash FROM tenant_api_keys WHERE name = 'vector'",
    )
    .await;
    let vector = "804e6d854739162fdea0d455b3aafe67f40d2919406186a27be601596ac6d306";
    assert_eq!(stored, vector);
}
