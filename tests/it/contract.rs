//! Promise: each answer has the status, the code and the shape that clients rely on.

use std::time::{Duration, Instant};

use recsys_ingest::tenants::role::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Client, Database, RawConnection, Reply, Service, click, eventually, shown};

const INTERACTIONS: &str = "/v1/interactions";
const EXPOSURES: &str = "/v1/exposures";

/// Asserts the shape that all problems share.
fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.problem(), (status, code), "{}", reply.text);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let kind = code.replace('_', "-");
    let problem = &reply.json;
    assert_eq!(
        problem["type"],
        format!("https://errors.recsys.example/problem/{kind}")
    );
    assert_eq!(problem["status"], status);
    for text in ["title", "detail", "instance"] {
        assert!(!problem[text].as_str().unwrap().is_empty(), "{text}");
    }
    let request_id = problem["request_id"].as_str().unwrap();
    assert_eq!(request_id, reply.header("x-request-id"));
    assert!(!request_id.is_empty());
}

#[tokio::test]
async fn a_committed_event_is_answered_with_200_and_is_in_the_table() {
    let service = Service::start().await;
    let reply = service.interactions(&click("a")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json,
        json!({"ack": "committed", "accepted": 1, "rejected": [], "committed": 1,
               "duplicates": 0, "quarantined": []})
    );
    assert_eq!(reply.header("x-ingest-ack"), "committed");
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(service.database.count("interaction_events").await, 1);
    assert_eq!(service.exposures(&shown("a")).await.settled(), (1, 0, 0, 0));
    assert_eq!(service.database.count("exposure_events").await, 1);
}

#[tokio::test]
async fn a_received_event_is_answered_with_202_and_arrives_later() {
    let service = Service::start().await;
    let client = service.client().query("ack=received");
    let reply = client.post(INTERACTIONS, &click("a")).await;
    assert_eq!(reply.status, 202);
    assert_eq!(
        reply.json,
        json!({"ack": "received", "accepted": 1, "rejected": []})
    );
    assert_eq!(reply.header("x-ingest-ack"), "received");
    eventually("the event", async || {
        service.database.count("interaction_events").await == 1
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_takes_too_long_is_answered_with_the_level_that_was_reached() {
    let service = Service::with(|s| s.with("--commit-timeout", "300ms")).await;
    let blocker = service.database.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE interaction_events IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let reply = service.interactions(&click("a")).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    assert_ne!(reply.json["ack"], "committed");
    assert_eq!(reply.header("x-ingest-ack"), reply.json["ack"]);
    assert_eq!(reply.json["ack_reason"], "commit_timeout");
    assert_eq!(reply.json["committed"], Value::Null);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    eventually("the event", async || {
        service.database.count("interaction_events").await == 1
    })
    .await;
}

#[tokio::test]
async fn requests_that_say_nothing_usable_are_400_with_a_code_each() {
    let service = Service::start().await;
    let client = service.client();
    for (query, body, code) in [
        ("ack=committed", "[{\"a\":1}", "malformed_body"),
        ("ack=committed", "{\"a\":1} {}", "malformed_body"),
        ("ack=committed", "", "no_events"),
        ("ack=committed", " \n ", "no_events"),
        ("ack=committed", "[]", "no_events"),
        ("ack=committed", "{\"events\": []}", "no_events"),
        ("ack=forever", "{}", "invalid_ack"),
        ("ack=", "{}", "invalid_ack"),
        ("format=parquet", "{}", "invalid_format"),
        ("format=service_v1", "{}", "invalid_format"),
        ("ack=received&ack=committed", "{}", "invalid_query"),
        (
            "ack=committed",
            r#"{"sent_at": "yesterday", "events": [{}]}"#,
            "invalid_sent_at",
        ),
        (
            "ack=committed",
            r#"{"events": [{}], "sent_at": 7}"#,
            "invalid_sent_at",
        ),
    ] {
        let reply = client.query(query).post_bytes(INTERACTIONS, body).await;
        assert_eq!(reply.problem(), (400, code), "{query} {body}");
        assert_problem(&reply, 400, code);
    }
    let reply = client.post_bytes(INTERACTIONS, *b"{\"a\":\"\xff\"}").await;
    assert_problem(&reply, 400, "malformed_body");
    let reply = client
        .header("content-encoding", "gzip")
        .post_bytes(INTERACTIONS, "not gzip")
        .await;
    assert_problem(&reply, 400, "invalid_compression");
}

#[tokio::test]
async fn a_key_is_taken_from_the_header_from_basic_and_from_the_query() {
    let service = Service::start().await;
    let bare = service.client().without("x-api-key");
    // "demo-ingest-key:" in base64.
    let basic = bare.header("authorization", "Basic ZGVtby1pbmdlc3Qta2V5Og==");
    let query = bare.query("key=demo-ingest-key");
    let header = bare.header("x-api-key", " demo-ingest-key ");
    for client in [basic, query, header] {
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
}

#[tokio::test]
async fn callers_without_a_valid_key_are_401() {
    let database = Database::with_tenants().await;
    database
        .execute(
            "UPDATE tenant_api_keys SET revoked_at = now()
             WHERE 'operator' = ANY (roles);
             UPDATE tenant_api_keys SET expires_at = now() - interval '1 second'
             WHERE 'admin' = ANY (roles)",
        )
        .await;
    let service = Service::on(&database, |s| s).await;
    let client = service.client();
    let cases = [
        (client.without("x-api-key"), "missing_api_key"),
        (client.header("x-api-key", "  "), "missing_api_key"),
        (client.header("x-api-key", "wrong"), "invalid_api_key"),
        (
            client.header("x-api-key", &"x".repeat(513)),
            "invalid_api_key",
        ),
        (client.role("demo", Role::Operator), "invalid_api_key"),
        (client.role("demo", Role::Admin), "invalid_api_key"),
    ];
    for (client, code) in cases {
        // A caller without a valid key learns nothing about other errors in the request.
        let reply = client.query("ack=forever").post_bytes(EXPOSURES, "[").await;
        assert_problem(&reply, 401, code);
        // A browser would open a dialog; see `habits::keys` for callers who use Basic.
        assert_eq!(reply.header("www-authenticate"), "");
    }
}

#[tokio::test]
async fn callers_who_may_not_do_that_are_403() {
    let service = Service::start().await;
    let client = service.client();
    for (client, path, code) in [
        (
            client.role("demo", Role::Publish),
            EXPOSURES,
            "role_not_allowed",
        ),
        (
            client.role("demo", Role::Viewer),
            INTERACTIONS,
            "role_not_allowed",
        ),
        (
            client.header("x-org-id", "other"),
            INTERACTIONS,
            "tenant_mismatch",
        ),
        (
            client.header("x-org-id", "nobody"),
            INTERACTIONS,
            "tenant_mismatch",
        ),
        (
            client
                .role("demo", Role::Service)
                .header("x-org-id", "asleep"),
            INTERACTIONS,
            "tenant_not_active",
        ),
        (
            client.role("asleep", Role::Ingest),
            INTERACTIONS,
            "tenant_not_active",
        ),
    ] {
        assert_problem(&client.post(path, &click("a")).await, 403, code);
    }
    for client in [
        client.role("demo", Role::Publish),
        client.header("x-org-id", "demo"),
        client
            .role("demo", Role::Service)
            .header("x-org-id", "other"),
    ] {
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let client = service.database.connect().await;
    let tenants =
        "SELECT external_id FROM tenants JOIN interaction_events ON tenant_id = id ORDER BY 1";
    assert_eq!(
        crate::harness::texts(&client, tenants).await,
        ["demo", "other"]
    );
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let service = Service::start().await;
    let client = service.client();
    assert_problem(&client.get("/v1/nothing").await, 404, "not_found");
    assert_problem(
        &client.post("/", &json!({})).await,
        405,
        "method_not_allowed",
    );
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let reply = client.send(method, EXPOSURES, Vec::new()).await;
        assert_problem(&reply, 405, "method_not_allowed");
        assert_eq!(reply.header("allow"), "POST, OPTIONS");
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let service = Service::with(|s| s.with("--body-timeout", "400ms")).await;
    let mut slow = RawConnection::open(service.client().address).await;
    slow.send_head(INTERACTIONS, &[("content-length", "100")])
        .await;
    slow.write(b"[{").await;
    let started = Instant::now();
    let reply = slow.reply().await;
    assert_problem(&reply, 408, "body_timeout");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(
        service.interactions(&click("a")).await.settled(),
        (1, 0, 0, 0),
        "others go on"
    );
}

#[tokio::test]
async fn what_is_too_large_is_413() {
    let service =
        Service::with(|s| s.with("--body-bytes-max", "2KiB").with("--events-max", "3")).await;
    let large = json!({"pad": "x".repeat(3000)});
    assert_problem(&service.interactions(&large).await, 413, "body_too_large");
    // A chunked body has no declared length: its bytes are counted as they arrive.
    let mut chunked = RawConnection::open(service.client().address).await;
    chunked
        .send_head(INTERACTIONS, &[("transfer-encoding", "chunked")])
        .await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    for _ in 0..3 {
        chunked.write(chunk.as_bytes()).await;
    }
    assert_problem(&chunked.reply().await, 413, "body_too_large");

    let four: Vec<_> = ["a", "b", "c", "d"].map(click).to_vec();
    let reply = service.interactions(&json!(four)).await;
    assert_problem(&reply, 413, "too_many_events");
    let reply = service.interactions(&json!(four[..3])).await;
    assert_eq!(reply.settled(), (3, 0, 0, 0));
}

#[tokio::test]
async fn unknown_types_and_encodings_are_415() {
    let service = Service::start().await;
    let client = service.client();
    for kind in ["text/html", "application/jsonx", "multipart/form-data"] {
        let client = client.header("content-type", kind);
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_problem(&reply, 415, "unsupported_media_type");
    }
    for encoding in ["compress", "gzip, gzip", "lzma"] {
        let client = client.header("content-encoding", encoding);
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_problem(&reply, 415, "unsupported_encoding");
    }
    let client = client.header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(client.post(INTERACTIONS, &click("a")).await.status, 200);
}

#[tokio::test]
async fn a_body_without_one_valid_event_is_422_and_says_why_of_each() {
    let service = Service::start().await;
    let body = json!([{"event_id": "x"}, 7]);
    let reply = service.interactions(&body).await;
    assert_problem(&reply, 422, "all_events_rejected");
    assert_eq!(reply.json["accepted"], 0);
    assert_eq!(
        reply.json["rejected"],
        json!([
            {"index": 0, "event_id": "x", "code": "missing_field", "field": "event_type",
             "message": "is required"},
            {"index": 1, "code": "not_an_object", "message": "an event is a JSON object"}
        ])
    );
}

#[tokio::test]
async fn a_spent_byte_budget_is_503_at_once_and_says_when_to_come_back() {
    let service = Service::with(|s| {
        s.with("--queue-bytes-max", "64KiB")
            .with("--body-bytes-max", "64KiB")
    })
    .await;
    // A body reserves memory for the bytes that have arrived.
    let mut holder = RawConnection::open(service.client().address).await;
    holder
        .send_head(INTERACTIONS, &[("content-length", "54000")])
        .await;
    holder.write(&[b' '; 53_999]).await;
    eventually("the loan", async || {
        service.metric("recsys_ingest_queue_bytes").await >= 53_999.0
    })
    .await;
    let large = json!({"pad": "x".repeat(10_000)});
    let started = Instant::now();
    let reply = service.interactions(&large).await;
    assert_problem(&reply, 503, "overloaded");
    assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(started.elapsed() < Duration::from_secs(2), "nothing hangs");
    // A small body still fits, and all memory is released when the holder disconnects.
    assert_eq!(
        service.interactions(&click("a")).await.settled(),
        (1, 0, 0, 0)
    );
    drop(holder);
    eventually("the memory", async || {
        service.metric("recsys_ingest_queue_bytes").await == 0.0
    })
    .await;
    assert_eq!(service.interactions(&large).await.status, 422);
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made_and_always_echoed() {
    let service = Service::start().await;
    let client: &Client = service.client();
    let reply = client
        .header("x-request-id", "host/rand10-000004")
        .post(INTERACTIONS, &click("a"))
        .await;
    assert_eq!(reply.header("x-request-id"), "host/rand10-000004");
    let reply = client
        .header("x-request-id", "mine-7")
        .post(INTERACTIONS, &json!([]))
        .await;
    assert_problem(&reply, 400, "no_events");
    assert_eq!(reply.json["request_id"], "mine-7");
    assert_eq!(reply.json["instance"], INTERACTIONS);
    let long = "x".repeat(129);
    for odd in [None, Some("two words"), Some(long.as_str()), Some("")] {
        let client = match odd {
            Some(odd) => client.header("x-request-id", odd),
            None => client.clone(),
        };
        let reply = client.get("/healthz").await;
        let made = Uuid::parse_str(reply.header("x-request-id"));
        assert!(made.is_ok(), "{odd:?} {:?}", reply.headers);
    }
}

#[tokio::test]
async fn health_readiness_metrics_and_the_description_need_no_key() {
    let service = Service::start().await;
    let client = service.client().without("x-api-key");
    let reply = client.get("/healthz").await;
    assert_eq!((reply.status, reply.text.as_str()), (200, "ok"));
    let reply = client.get("/readyz").await;
    assert_eq!(
        (reply.status, reply.json),
        (200, json!({"status": "ready"}))
    );
    let reply = client.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(
        reply
            .text
            .contains("# TYPE recsys_ingest_requests_total counter\n")
    );
    assert!(!reply.text.contains("# EOF"));
    let accept = "application/openmetrics-text; version=1.0.0, text/plain;q=0.5";
    let reply = client.header("accept", accept).get("/metrics").await;
    assert!(
        reply
            .text
            .contains("# TYPE recsys_ingest_requests counter\n")
    );
    assert!(reply.text.ends_with("# EOF\n"));
    let reply = client.get("/openapi.json").await;
    assert_eq!(reply.status, 200);
    for path in [INTERACTIONS, EXPOSURES] {
        assert!(reply.json["paths"][path]["post"].is_object(), "{path}");
    }
    assert_eq!(client.get("/docs/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let service = Service::start().await;
    let large = vec![b' '; 9 << 20];
    for (client, status) in [
        (service.client().header("x-api-key", "wrong"), 401),
        (service.client().role("demo", Role::Viewer), 403),
        (service.client().clone(), 413),
        (service.client().header("content-type", "text/html"), 415),
    ] {
        for _ in 0..5 {
            let reply = client
                .try_send(Method::POST, INTERACTIONS, large.clone())
                .await;
            let reply = reply.unwrap_or_else(|error| panic!("{status}: {error:?}"));
            assert_eq!(reply.status, status);
        }
    }
}
