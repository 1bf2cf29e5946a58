//! Promise: nothing of an event is dropped in silence: what is not known is kept, and told.

use serde_json::{Value, json};

use crate::harness::{Reply, Service, click, rows, shown};

const INTERACTIONS: &str = "/v1/interactions";

fn with(mut event: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    event.as_object_mut().unwrap().extend(more);
    event
}

fn warnings(reply: &Reply) -> Vec<(String, String, u64)> {
    let told = reply.json["warnings"].as_array().into_iter().flatten();
    told.map(|one| {
        (
            one["code"].as_str().unwrap().to_owned(),
            one["field"].as_str().unwrap().to_owned(),
            one["count"].as_u64().unwrap(),
        )
    })
    .collect()
}

fn expected(all: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    all.iter()
        .map(|(code, field, count)| ((*code).to_owned(), (*field).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn what_was_done_to_events_is_told_by_field_with_counts() {
    let service = Service::start().await;
    let mut untimed = click("c");
    drop(untimed.as_object_mut().unwrap().remove("occurred_at"));
    let body = json!([
        with(
            click("a"),
            &json!({"campaign": "spring", "value": 1.000_000_1})
        ),
        with(
            click("b"),
            &json!({"campaign": "fall", "occurred_at": "2026-03-10T08:00:00.1234567Z"})
        ),
        untimed,
        with(click("bad"), &json!({"event_type": "stare", "typo": 1})),
    ]);
    for client in [
        service.client().clone(),
        service.client().query("ack=durable"),
    ] {
        let reply = client.post(INTERACTIONS, &body).await;
        assert_eq!(reply.json["accepted"], 3, "{}", reply.text);
        let all = [
            ("unknown_field", "campaign", 2),
            ("value_rounded", "value", 1),
            ("time_truncated", "occurred_at", 1),
            ("arrival_time_used", "occurred_at", 1),
        ];
        assert_eq!(warnings(&reply), expected(&all), "{}", reply.text);
        assert_eq!(reply.json["warnings_more"], Value::Null);
    }
    let found = rows(&service.database, "interaction_events").await;
    let kept = found
        .iter()
        .filter_map(|row| row["meta"]["extra"]["campaign"].as_str());
    assert_eq!(kept.collect::<Vec<_>>(), ["spring", "fall"]);
    // Ordinary events have no warnings, and the answer says nothing of them.
    for reply in [
        service.interactions(&click("d")).await,
        service.exposures(&shown("d")).await,
    ] {
        assert_eq!(reply.json["warnings"], Value::Null, "{}", reply.text);
    }
}

#[tokio::test]
async fn strict_refuses_the_event_that_has_an_unknown_field_and_no_other() {
    let service = Service::start().await;
    let bad = with(click("bad"), &json!({"campain": "spring"}));
    for (query, count) in [
        ("strict=true", 1),
        ("ack=committed&strict=1", 1),
        ("strict=false", 0),
    ] {
        let body = json!([click("a"), bad, click("b")]);
        let reply = service
            .client()
            .query(query)
            .post(INTERACTIONS, &body)
            .await;
        assert_eq!(reply.settled().3, count, "{query} {}", reply.text);
        if count > 0 {
            assert_eq!(reply.rejection(), ("unknown_field", "campain"));
            assert_eq!(reply.json["rejected"][0]["index"], 1);
        }
    }
    for query in ["strict=", "strict=perhaps", "strict=true&strict=true"] {
        let reply = service.client().query(query).post(INTERACTIONS, &bad).await;
        assert_eq!(reply.problem(), (400, "invalid_query"), "{query}");
    }
}

#[tokio::test]
async fn an_answer_names_twenty_fields_at_most_and_stays_within_its_bound() {
    let service = Service::start().await;
    let short: Vec<_> = (0..1000).map(|n| format!("\"{n}\":0")).collect();
    let long: Vec<_> = (0..300)
        .map(|n| format!("\"{}{n}\":0", "\\u0001".repeat(100)))
        .collect();
    for (names, named) in [
        (&short[..], 20),
        (&short[..20], 20),
        (&short[..3], 3),
        (&long, 1),
    ] {
        let fields = names.join(",");
        let text = format!(r#"{{"event_type":"click","item_id":"a",{fields}}}"#);
        let reply = service
            .client()
            .post_bytes(INTERACTIONS, text.as_str())
            .await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
        let told = warnings(&reply);
        assert_eq!(told.len(), named, "{}", reply.text);
        assert!(told.iter().all(|(_, name, _)| name.chars().count() <= 64));
        assert!(reply.text.len() <= 3 * text.len() + 4096);
        let more: u64 = reply.json["warnings_more"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|more| more["count"].as_u64().unwrap())
            .sum();
        let all = if named == 1 { 1 } else { names.len() };
        assert_eq!(named as u64 + more, all as u64, "{}", reply.text);
    }
    // Rejections go first where there is not room for all.
    let event = format!(
        r#"{{"event_type":"click","item_id":"a",{}}}"#,
        long[..20].join(",")
    );
    let bad = r#"{"event_id":"0"}"#;
    let body = format!("[{event},{}]", vec![bad; 200].join(","));
    let reply = service
        .client()
        .post_bytes(INTERACTIONS, body.as_str())
        .await;
    assert_eq!(reply.settled(), (1, 0, 0, 200), "{}", reply.text);
    assert!(reply.text.len() <= 3 * body.len() + 4096);
}

#[tokio::test]
async fn what_an_envelope_holds_beside_its_events_is_told_and_refused_if_asked_to() {
    let service = Service::start().await;
    let events = json!([click("a"), click("b"), null]);
    let body =
        format!(r#"{{"tenant_id":"other","events":{events},"sent_at":null,"batch":7,"batch":8}}"#);
    let reply = service
        .client()
        .post_bytes(INTERACTIONS, body.clone())
        .await;
    assert_eq!(reply.json["accepted"], 2, "{}", reply.text);
    let all = [
        ("dropped_field", "tenant_id", 2),
        ("dropped_field", "batch", 2),
    ];
    assert_eq!(warnings(&reply), expected(&all));
    let strict = service.client().query("strict=true");
    let reply = strict.post_bytes(INTERACTIONS, body).await;
    assert_eq!(reply.problem(), (400, "unknown_field"), "{}", reply.text);
    assert!(reply.text.contains("not 'tenant_id'"), "{}", reply.text);
    let body = json!({"events": [click("a")], "sent_at": "2026-03-10T08:00:00Z"});
    let reply = strict.post(INTERACTIONS, &body).await;
    assert_eq!(
        (reply.json["accepted"].as_u64(), warnings(&reply).len()),
        (Some(1), 0)
    );
}
