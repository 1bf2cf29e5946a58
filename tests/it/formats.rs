//! Promise: each format's events become the rows that the suite's contract asks for.
//!
//! Rows are compared whole, as PostgreSQL gives them back, with expectations
//! taken from the contract and not from the program.

use recsys_ingest::store::directory::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{DEMO, OTHER, Row, Service, rows};

/// HMAC-SHA256 under the salt "salt" of "user" (the contract's vector), "anon-1"
/// and "session-1", computed by another program.
const USER: &str = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
const ANON: &str = "9d7086896eb1d9e9e54aa00cf55727b7f3d136e70748739cd04c76c5833fcffe";
const SESSION: &str = "abebc6c5284454fc251c93b72de04e58098a8382b1cb4d6a53d2be191a547e85";
/// UUIDv5 in the OID namespace: the contract's vectors.
const R1: &str = "d01a42ab-5bfd-532a-a2bb-240ba2e5bc12";
const REQ_1: &str = "212368a7-0138-518e-aa15-c4ccfd6834b6";
/// UUIDv5 of "evt-1" in the namespace of the tenant demo.
const EVT_1: &str = "aee0af67-3ee3-5d79-bcf1-771a8992a7a5";
const A_UUID: &str = "0190163d-8694-439b-aea5-966c26f8ad91";
const ETAG: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn bytes(hash: &str) -> Value {
    json!(format!("\\x{hash}"))
}

/// Posts `body` and returns the rows that it became.
async fn exposures(body: &Value, role: Role) -> Vec<Row> {
    let service = Service::start().await;
    let client = service.client().role("demo", role);
    let reply = client.post("/v1/exposures", body).await;
    let events = body.as_array().map_or(1, Vec::len) as u64;
    assert_eq!(reply.settled(), (events, 0, 0, 0), "{}", reply.text);
    rows(&service.database, "exposure_events").await
}

/// Posts `body` and returns the rows that it became.
async fn interactions(body: &Value) -> Vec<Row> {
    let service = Service::start().await;
    let reply = service.interactions(body).await;
    let events = body.as_array().map_or(1, Vec::len) as u64;
    assert_eq!(reply.settled(), (events, 0, 0, 0), "{}", reply.text);
    rows(&service.database, "interaction_events").await
}

/// Takes the id that the service made out of a row, checked for its version.
fn take_made_id(row: &mut Row, version: usize) -> Uuid {
    let id = row.remove("event_id").unwrap();
    let id = Uuid::parse_str(id.as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), version, "{id}");
    id
}

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
        // Version 7, made at 2026-03-10T08:00:00.123Z.
        {"event_id": "019cd6c2-8c7b-7000-8000-000000000001", "event_type": "view", "item_id": "v7"},
        {"event_id": "named", "event_type": "view", "item_id": "now"},
        {"event_type": "view", "item_id": "neither"}
    ]);
    let service = Service::start().await;
    assert_eq!(service.interactions(&events).await.settled(), (3, 0, 0, 0));
    let sql = "SELECT item_id, occurred_at = received_at AS on_arrival, occurred_at
                 FROM interaction_events ORDER BY occurred_at, item_id";
    let found = crate::harness::rows_as_text(&service.database, sql).await;
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
async fn service_v1_as_recsys_service_logs_a_recommendation() {
    let items = json!([
        {"item_id": "a", "rank": 1, "score": 0.75}, {"item_id": "b", "rank": 2}
    ]);
    let event = json!({
        "schema_version": "v1",
        "timestamp": "2026-05-24T10:00:00.123456789Z",
        "request_id": "req-1",
        "tenant_id": "demo",
        "surface": "home",
        "segment": "vip",
        "algo_version": "recsys-algo@1.2",
        "config_version": ETAG,
        "rules_version": format!("W/\"{ETAG}\""),
        "experiment": {"id": "exp-1", "variant": "A"},
        "subject": {"user_id_hash": USER, "anonymous_id_hash": ANON, "session_id_hash": SESSION},
        "context": {"locale": "en", "device": "web", "country": "US", "now": "2026-05-24T10:00:00Z"},
        "items": items
    });
    let mut found = exposures(&event, Role::Service).await;
    take_made_id(&mut found[0], 5);
    let meta = &mut found[0]["response"]["meta"];
    // The suite's own response says these things of itself.
    for (name, value) in [
        ("tenant_id", "demo"),
        ("surface", "home"),
        ("segment", "vip"),
        ("algo_version", "recsys-algo@1.2"),
        ("config_version", ETAG),
        ("rules_version", ETAG),
        ("request_id", "req-1"),
    ] {
        assert_eq!(meta[name], value, "{name}");
    }
    *meta = json!("seen");
    let expected = json!({
        "tenant_id": DEMO,
        "occurred_at": "2026-05-24 10:00:00.123456+00",
        "request_id": REQ_1,
        "surface": "home",
        "segment": "vip",
        "user_key": bytes(USER),
        "session_id": SESSION,
        "experiment_id": "exp-1",
        "experiment_variant": "A",
        "algo_version": "recsys-algo@1.2",
        "config_etag": ETAG,
        "rules_etag": ETAG,
        "request": {
            "surface": "home", "segment": "vip",
            "context": {"locale": "en", "device": "web", "country": "US", "now": "2026-05-24T10:00:00Z"},
            "experiment": {"id": "exp-1", "variant": "A"},
            "subject": {"user_id_hash": USER, "anonymous_id_hash": ANON, "session_id_hash": SESSION}
        },
        "response": {"items": items, "meta": "seen"},
        "meta": {
            "source": "service", "schema": "service_v1", "request_id": "req-1",
            "subject_kind": "user", "anonymous_id_hash": ANON
        }
    });
    assert_eq!(json!(found), json!([expected]));
}

#[tokio::test]
async fn service_v1_as_recsys_service_logs_similar_items_and_visitors() {
    let events = json!([
        // No subject, no experiment, no context, and an empty list left out.
        {"schema_version": "v1", "timestamp": "2026-05-24T10:00:00Z", "request_id": A_UUID,
         "surface": "pdp"},
        {"schema_version": "v1", "timestamp": "2026-05-24T10:00:01Z", "request_id": "r1",
         "surface": "pdp", "tenant_id": "other", "subject": {"anonymous_id_hash": ANON},
         "items": [{"item_id": "a", "rank": 1}]}
    ]);
    let mut found = exposures(&events, Role::Service).await;
    for row in &mut found {
        take_made_id(row, 5);
        drop(row["response"].as_object_mut().unwrap().remove("meta"));
    }
    let expected = json!([
        {
            "tenant_id": DEMO, "occurred_at": "2026-05-24 10:00:00+00", "request_id": A_UUID,
            "surface": "pdp", "segment": "default", "user_key": null, "session_id": A_UUID,
            "experiment_id": null, "experiment_variant": null, "algo_version": "unknown",
            "config_etag": null, "rules_etag": null, "request": {"surface": "pdp"},
            "response": {"items": []}, "meta": {"source": "service", "schema": "service_v1"}
        },
        {
            "tenant_id": OTHER, "occurred_at": "2026-05-24 10:00:01+00", "request_id": R1,
            "surface": "pdp", "segment": "default", "user_key": bytes(ANON), "session_id": "r1",
            "experiment_id": null, "experiment_variant": null, "algo_version": "unknown",
            "config_etag": null, "rules_etag": null,
            "request": {"surface": "pdp", "subject": {"anonymous_id_hash": ANON}},
            "response": {"items": [{"item_id": "a", "rank": 1}]},
            "meta": {
                "source": "service", "schema": "service_v1", "request_id": "r1",
                "subject_kind": "anonymous"
            }
        }
    ]);
    assert_eq!(json!(found), expected);
}

#[tokio::test]
async fn eval_v1_whose_user_is_a_hash_a_raw_id_or_nobody() {
    let event = |second: u32, request: &str, user: &str| {
        json!({
            "request_id": request, "user_id": user, "ts": format!("2026-05-24T10:00:0{second}Z"),
            "items": [{"item_id": "a", "rank": 1, "propensity": 0.5, "logging_propensity": 0.25,
                       "target_propensity": 1}],
            "context": {
                "tenant_id": "demo", "surface": "home", "segment": "vip",
                "algo_version": "recsys-algo@1.2", "config_version": ETAG, "rules_version": ETAG,
                "experiment_id": "exp-1", "experiment_variant": "A", "locale": "en"
            },
            "latency_ms": 12.5, "error": false
        })
    };
    let events = json!([
        event(0, "req-1", USER),
        event(1, "req-1", "user"),
        event(2, "req-1", "req-1"),
        event(3, A_UUID, ""),
        {"request_id": "r1", "user_id": "r1", "ts": "2026-05-24T10:00:04Z", "items": [],
         "context": {"tenant": "demo", "surface": "home"}}
    ]);
    let mut found = exposures(&events, Role::Ingest).await;
    let context = &events[0]["context"];
    let row = |second: u32, user: Value| {
        json!({
            "tenant_id": DEMO, "occurred_at": format!("2026-05-24 10:00:0{second}+00"),
            "request_id": REQ_1, "surface": "home", "segment": "vip", "user_key": user,
            "session_id": "req-1", "experiment_id": "exp-1", "experiment_variant": "A",
            "algo_version": "recsys-algo@1.2", "config_etag": ETAG, "rules_etag": ETAG,
            "request": {"context": context},
            "response": {"items": [{"item_id": "a", "rank": 1, "propensity": 0.5,
                         "logging_propensity": 0.25, "target_propensity": 1}]},
            "meta": {"source": "ingest", "schema": "eval_v1", "request_id": "req-1",
                     "latency_ms": 12.5, "error": false}
        })
    };
    let mut with_uuid = row(3, Value::Null);
    with_uuid["request_id"] = json!(A_UUID);
    with_uuid["session_id"] = json!(A_UUID);
    drop(
        with_uuid["meta"]
            .as_object_mut()
            .unwrap()
            .remove("request_id"),
    );
    let least = json!({
        "tenant_id": DEMO, "occurred_at": "2026-05-24 10:00:04+00", "request_id": R1,
        "surface": "home", "segment": "default", "user_key": null, "session_id": "r1",
        "experiment_id": null, "experiment_variant": null, "algo_version": "unknown",
        "config_etag": null, "rules_etag": null,
        "request": {"context": {"tenant": "demo", "surface": "home"}},
        "response": {"items": []},
        "meta": {"source": "ingest", "schema": "eval_v1", "request_id": "r1"}
    });
    for row in &mut found {
        take_made_id(row, 5);
    }
    let expected = [
        row(0, bytes(USER)),
        row(1, bytes(USER)),
        row(2, Value::Null),
        with_uuid,
        least,
    ];
    assert_eq!(json!(found), json!(expected));
}

#[tokio::test]
async fn eval_v1_without_a_surface_is_rejected() {
    let service = Service::start().await;
    let event = json!({"request_id": "r1", "user_id": "u", "ts": "2026-05-24T10:00:00Z",
                       "items": [], "context": {"tenant": "demo"}});
    let reply = service.exposures(&event).await;
    assert_eq!(reply.rejection(), ("missing_field", "context.surface"));
}

#[tokio::test]
async fn pipelines_v1_lines_become_the_lists_that_were_shown() {
    let line = |ts: &str, item: &str, rank: Option<u32>, request: Option<&str>| {
        let mut line = json!({
            "v": 1, "ts": format!("2026-05-24T10:00:{ts}Z"), "tenant": "demo", "surface": "home",
            "session_id": "session-1", "item_id": item
        });
        if let Some(rank) = rank {
            line["rank"] = json!(rank);
        }
        if let Some(request) = request {
            line["request_id"] = json!(request);
            line["user_id"] = json!("user");
        }
        line
    };
    let events = json!([
        // One request, whatever stands between its lines and however far apart they are.
        line("09.5", "b", Some(1), Some("req-1")),
        line("30", "x", None, None),
        line("01.25", "a", Some(0), Some("req-1")),
        // No request id: lines of one session and surface that are close in time.
        line("30.2", "y", None, None),
        line("50", "z", None, None),
    ]);
    let mut found = exposures(&events, Role::Ingest).await;
    for row in &mut found {
        take_made_id(row, 5);
    }
    // A made-up request id is one of its own for each list.
    let made: Vec<_> = found[1..]
        .iter_mut()
        .map(|row| {
            let id = row.remove("request_id").unwrap();
            Uuid::parse_str(id.as_str().unwrap()).unwrap()
        })
        .collect();
    assert_ne!(made[0], made[1]);
    assert_eq!(
        (made[0].get_version_num(), made[1].get_version_num()),
        (5, 5)
    );
    let row = |at: &str, items: Value| {
        json!({
            "tenant_id": DEMO, "occurred_at": format!("2026-05-24 10:00:{at}+00"),
            "surface": "home", "segment": "default", "user_key": null, "session_id": SESSION,
            "experiment_id": null, "experiment_variant": null, "algo_version": "unknown",
            "config_etag": null, "rules_etag": null, "request": {},
            "response": {"items": items},
            "meta": {"source": "ingest", "schema": "pipelines_v1"}
        })
    };
    let mut first = row(
        "01.25",
        json!([{"item_id": "b", "rank": 1}, {"item_id": "a", "rank": 0}]),
    );
    first["request_id"] = json!(REQ_1);
    first["user_key"] = bytes(USER);
    first["meta"]["request_id"] = json!("req-1");
    let expected = [
        first,
        row(
            "30",
            json!([{"item_id": "x", "rank": 1}, {"item_id": "y", "rank": 2}]),
        ),
        row("50", json!([{"item_id": "z", "rank": 1}])),
    ];
    assert_eq!(json!(found), json!(expected));
}

#[tokio::test]
async fn outcome_v1_becomes_clicks_and_purchases() {
    let events = json!([
        {"request_id": "req-1", "user_id": USER, "item_id": "a", "event_type": "click",
         "ts": "2026-05-24T10:00:00Z"},
        {"request_id": "req-1", "user_id": "user", "item_id": "a", "event_type": "conversion",
         "value": 19.9, "ts": "2026-05-24T10:00:01Z", "note": "x"},
        {"request_id": A_UUID, "user_id": A_UUID, "item_id": "b", "event_type": "conversion",
         "value": 0, "ts": "2026-05-24T10:00:02Z"}
    ]);
    let mut found = interactions(&events).await;
    for row in &mut found {
        take_made_id(row, 5);
    }
    let row = |second: u32, user: Value| {
        json!({
            "tenant_id": DEMO, "occurred_at": format!("2026-05-24 10:00:0{second}+00"),
            "request_id": REQ_1, "user_key": user, "session_id": null, "surface": null,
            "segment": null, "event_type": "click", "item_id": "a", "position": null,
            "value": null,
            "meta": {"source": "ingest", "schema": "outcome_v1", "request_id": "req-1"}
        })
    };
    let click = row(0, bytes(USER));
    let mut purchase = row(1, bytes(USER));
    purchase["event_type"] = json!("purchase");
    purchase["value"] = json!("19.900000");
    purchase["meta"]["extra"] = json!({"note": "x"});
    let mut nobodys = row(2, Value::Null);
    nobodys["event_type"] = json!("purchase");
    // Nothing is not the same as no value.
    nobodys["value"] = json!("0.000000");
    nobodys["item_id"] = json!("b");
    nobodys["request_id"] = json!(A_UUID);
    drop(
        nobodys["meta"]
            .as_object_mut()
            .unwrap()
            .remove("request_id"),
    );
    assert_eq!(json!(found), json!([click, purchase, nobodys]));
}

#[tokio::test]
async fn the_named_format_counts_and_not_the_look_of_the_event() {
    let service = Service::start().await;
    // Has what marks a native event, and is an outcome all the same.
    let event = json!({"occurred_at": "x", "ts": "2026-05-24T10:00:00Z", "item_id": "a",
                       "event_type": "conversion", "request_id": "r1", "user_id": "r1"});
    let client = service.client().query("format=outcome_v1");
    let reply = client.post("/v1/interactions", &event).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    let found = rows(&service.database, "interaction_events").await;
    assert_eq!(found[0]["event_type"], "purchase");
    assert_eq!(found[0]["meta"]["extra"], json!({"occurred_at": "x"}));
}

#[tokio::test]
async fn api_keys_are_stored_as_the_suite_stores_them() {
    let database = crate::harness::Database::with_tenants().await;
    let client = database.connect().await;
    use recsys_ingest::store::directory::{ApiKeyHasher, admin};
    let hasher = ApiKeyHasher::new(crate::harness::PEPPER.as_bytes());
    admin::insert_key(
        &client,
        &hasher,
        "demo",
        Some("vector"),
        &[Role::Ingest],
        "secret",
    )
    .await
    .unwrap();
    let stored: String = crate::harness::one(
        &client,
        "SELECT key_hash FROM tenant_api_keys WHERE name = 'vector'",
    )
    .await;
    let vector = "804e6d854739162fdea0d455b3aafe67f40d2919406186a27be601596ac6d306";
    assert_eq!(stored, vector);
}
