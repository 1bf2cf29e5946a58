//! The formats of the suite's other components.

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    A_UUID, ANON, ETAG, R1, REQ_1, SESSION, USER, bytes, exposures, interactions, take_made_id,
};
use crate::harness::{DEMO, OTHER, Service, rows};

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
    // The suite's own responses carry these fields in `meta`.
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
        // No subject, no experiment, no context, and no list of items.
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
        // Lines with one request id form one list, with other lines in between and at any
        // distance in time.
        line("09.5", "b", Some(1), Some("req-1")),
        line("30", "x", None, None),
        line("01.25", "a", Some(0), Some("req-1")),
        // Without a request id, lines of one session and surface that are close in time form a
        // list.
        line("30.2", "y", None, None),
        line("50", "z", None, None),
    ]);
    let mut found = exposures(&events, Role::Ingest).await;
    for row in &mut found {
        take_made_id(row, 5);
    }
    // Each list without a request id gets its own generated one.
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
    // The value 0 is stored as 0, not as NULL.
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
    // Looks like a native event, but the query names `outcome_v1`.
    let event = json!({"occurred_at": "x", "ts": "2026-05-24T10:00:00Z", "item_id": "a",
                       "event_type": "conversion", "request_id": "r1", "user_id": "r1"});
    let client = service.client().query("format=outcome_v1");
    let reply = client.post("/v1/interactions", &event).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    let found = rows(&service.database, "interaction_events").await;
    assert_eq!(found[0]["event_type"], "purchase");
    assert_eq!(found[0]["meta"]["extra"], json!({"occurred_at": "x"}));
}
