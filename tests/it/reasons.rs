//! Promise: a refusal is right, gives the true reason, and is counted.

use recsys_ingest::tenants::role::Role;
use serde_json::json;

use crate::backpressure::fill_up;
use crate::harness::{Rig, Service, click, eventually, shown};

const INTERACTIONS: &str = "/v1/interactions";

#[tokio::test]
async fn a_member_of_the_envelope_that_stands_twice_is_refused() {
    let service = Service::start().await;
    let event = click("a");
    for (body, name) in [
        (
            format!(r#"{{"events":[{event}],"events":[{event}]}}"#),
            "events",
        ),
        (format!(r#"{{"events":[],"events":[{event}]}}"#), "events"),
        (format!(r#"{{"events":7,"events":[{event}]}}"#), "events"),
        (format!(r#"{{"events":[{event}],"events":7}}"#), "events"),
        (
            format!(r#"{{"events":[{event}],"ev\u0065nts":[]}}"#),
            "events",
        ),
        (
            format!(r#"{{"sent_at":"2026-03-10T08:00:00Z","events":[{event}],"sent_at":"x"}}"#),
            "sent_at",
        ),
    ] {
        let reply = service
            .client()
            .post_bytes(INTERACTIONS, body.as_str())
            .await;
        assert_eq!(reply.problem(), (400, "duplicate_field"), "{body}");
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains(name), "{detail}");
    }
    assert_eq!(service.database.count("interaction_events").await, 0);
}

#[tokio::test]
async fn a_nested_field_that_decides_something_may_not_stand_twice() {
    let service = Service::start().await;
    let eval = |context: &str| {
        format!(
            r#"{{"request_id":"r","ts":"2026-03-10T08:00:00Z","items":[],"context":{{"surface":"s",{context}}}}}"#
        )
    };
    let service_v1 = |subject: &str| {
        format!(
            r#"{{"schema_version":"v1","timestamp":"2026-03-10T08:00:00Z","request_id":"r","surface":"s","subject":{{{subject}}}}}"#
        )
    };
    let native = |experiment: &str| {
        let text = shown("a").to_string();
        format!(
            "{},\"experiment\":{{{experiment}}}}}",
            &text[..text.len() - 1]
        )
    };
    for (body, field) in [
        (
            eval(r#""tenant_id":"demo","tenant_id":"other""#),
            "context.tenant_id",
        ),
        (eval(r#""surface":"t""#), "context.surface"),
        (
            service_v1(r#""user_id":"a","user_id":"b""#),
            "subject.user_id",
        ),
        (native(r#""id":"a","id":"b""#), "experiment.id"),
        (
            native(r#""variant":"a","variant":null"#),
            "experiment.variant",
        ),
    ] {
        let reply = service
            .client()
            .post_bytes("/v1/exposures", body.as_str())
            .await;
        assert_eq!(reply.status, 422, "{body}: {}", reply.text);
        assert_eq!(reply.rejection(), ("duplicate_field", field), "{body}");
    }
    let both = click("a");
    let text = both.to_string();
    let body = format!(
        r#"{},"tenant_id":"demo","tenant":"other"}}"#,
        &text[..text.len() - 1]
    );
    let reply = service.client().post_bytes(INTERACTIONS, body).await;
    assert_eq!(reply.rejection(), ("conflicting_fields", "tenant"));
}

#[tokio::test]
async fn an_unknown_query_parameter_is_refused_by_name() {
    let service = Service::start().await;
    for (query, name) in [
        ("acks=committed", "acks"),
        ("ack=committed&ACK=durable", "ACK"),
        ("format=native&pretty", "pretty"),
        ("=1", ""),
    ] {
        let client = service.client().query(query);
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_eq!(reply.problem(), (400, "invalid_query"), "{query}");
        let detail = reply.json["detail"].as_str().unwrap();
        for word in [name, "ack", "format", "key"] {
            assert!(detail.contains(word), "{query}: {detail}");
        }
    }
    let reply = service
        .client()
        .query("ack=durable&ack=durable")
        .post(INTERACTIONS, &click("a"))
        .await;
    assert_eq!(reply.problem(), (400, "invalid_query"));
    assert!(reply.json["detail"].as_str().unwrap().contains("ack"));
    let stranger = service
        .client()
        .without("x-api-key")
        .query("acks=committed");
    let reply = stranger.post(INTERACTIONS, &click("a")).await;
    assert_eq!(reply.problem(), (401, "missing_api_key"));
    let long = format!("{}=1", "x".repeat(5000));
    let reply = service
        .client()
        .query(&long)
        .post(INTERACTIONS, &click("a"))
        .await;
    assert_eq!(reply.problem(), (400, "invalid_query"));
    assert!(reply.text.len() < 4096);
}

#[tokio::test]
async fn the_header_that_names_a_tenant_is_answered_as_an_event_that_names_one() {
    let service = Service::start().await;
    let all_tenants = service.client().role("demo", Role::Service);
    for (client, code) in [
        (all_tenants.header("x-org-id", "nobody"), "unknown_tenant"),
        (all_tenants.header("x-org-id", ""), "unknown_tenant"),
        (
            all_tenants.header("x-org-id", "asleep"),
            "tenant_not_active",
        ),
        (
            service.client().header("x-org-id", "nobody"),
            "tenant_mismatch",
        ),
    ] {
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_eq!(reply.problem(), (403, code), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_at_its_reserve_is_the_reason_and_not_postgres() {
    let service = Service::with(|s| s.with("--spool-disk-reserve", "900TiB")).await;
    let reply = service.interactions(&click("a")).await;
    assert_eq!(reply.problem(), (503, "spool_full"), "{}", reply.text);
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains("--spool-disk-reserve"), "{detail}");
    assert!(!detail.contains("Postgres"), "{detail}");
    assert_ne!(reply.header("retry-after"), "");
    let refused = "recsys_ingest_refused_requests_total{reason=\"spool_full\"}";
    eventually("the refusal to be counted", async || {
        service.metric(refused).await == 1.0
    })
    .await;
    assert_eq!(service.stop().await.unwrap().refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_says_what_is_known_of_postgres_and_every_refusal_is_counted() {
    let mut rig = Rig::start(|settings| settings.with("--spool-bytes-max", "36MiB")).await;
    let traffic = fill_up(&mut rig, 2);
    let sent = traffic.stop();
    let refused = sent.tally.codes["spool_full"];
    let body = json!((0..100).map(|n| click(&n.to_string())).collect::<Vec<_>>());
    let mut more = 0;
    let reply = loop {
        let reply = rig.client.post(INTERACTIONS, &body).await;
        more += 1;
        if reply.status == 503 {
            break reply;
        }
    };
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains("--spool-bytes-max"), "{detail}");
    assert!(detail.contains("Postgres is away"), "{detail}");
    let text = rig.client.get("/metrics").await.text;
    let line = format!(
        "recsys_ingest_refused_requests_total{{reason=\"spool_full\"}} {}",
        refused + 1
    );
    assert!(text.contains(&line), "{more} more, {line}\n{text}");
    rig.cluster.restart();
    rig.process.stop();
    assert_eq!(rig.process.report()["refused"], refused + 1);
}
