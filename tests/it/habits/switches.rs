//! `?partial=false` and `?validate=true`.

use serde_json::{Value, json};

use super::{Habits, Post};
use crate::harness::click;

const INVALID_QUERY: (u16, &str) = (400, "invalid_query");

/// A body of events with these names, and of events that are not valid.
fn body(valid: &[&str], invalid: usize) -> String {
    let mut events: Vec<Value> = valid.iter().map(|name| click(name)).collect();
    events.extend(
        (0..invalid).map(|n| json!({"event_id": format!("bad {n}"), "event_type": "click"})),
    );
    Value::from(events).to_string()
}

#[tokio::test]
async fn partial_false_takes_all_or_none() {
    let mut habits = Habits::start().await;
    for off in ["false", "FALSE", "0", "no", "Off"] {
        let query = format!("partial={off}");
        let post = Post::of(&query)
            .query(&query)
            .body(body(&[&query, "more", off], 2));
        let reply = habits.refuses(post, (422, "some_events_rejected")).await;
        assert_eq!(reply.json["accepted"], 0);
        let rejected = reply.json["rejected"].as_array().unwrap();
        let told: Vec<_> = rejected
            .iter()
            .map(|one| (&one["index"], &one["code"], &one["field"]))
            .collect();
        let (code, field) = (json!("missing_field"), json!("item_id"));
        assert_eq!(
            told,
            [(&json!(3), &code, &field), (&json!(4), &code, &field)]
        );
        assert!(
            reply.json["detail"]
                .as_str()
                .unwrap()
                .contains("only 3 of them are valid"),
            "{}",
            reply.text
        );
        let post = Post::of(&query).query(&query).body(body(&[], 1));
        habits.refuses(post, (422, "all_events_rejected")).await;
        let post = Post::of(&query)
            .query(&query)
            .body(body(&[&query, &format!("b {off}")], 0));
        habits.takes(post, 2).await;
    }
    // Lines, and more rejections than are told one by one.
    let mut lines = format!("{}\n", click("line"));
    lines.push_str(&"{\"event_id\":\"x\"}\nnot JSON\n".repeat(100));
    let post = Post::of("lines")
        .query("partial=false")
        .header("content-type", "application/x-ndjson");
    let reply = habits
        .refuses(post.body(&lines), (422, "some_events_rejected"))
        .await;
    let counted: u64 = reply.json["rejected_more"]
        .as_array()
        .unwrap()
        .iter()
        .map(|more| more["count"].as_u64().unwrap())
        .sum();
    assert_eq!(
        reply.json["rejected"].as_array().unwrap().len() as u64 + counted,
        200
    );
    // Otherwise the valid ones are taken.
    for on in ["true", "1", "yes", "On"]
        .map(|on| format!("partial={on}"))
        .into_iter()
        .chain(["partial".to_owned(), "ack=committed".to_owned()])
    {
        let post = Post::of(&on).query(&on).body(body(&[&on], 1));
        let reply = habits.send(&post).await;
        assert_eq!(reply.settled(), (1, 0, 0, 1), "{on}: {}", reply.text);
        habits.stored += 1;
        habits.counts(&on).await;
    }
    for odd in [
        "partial=maybe",
        "partial=2",
        "partial=",
        "partial=false&partial=false",
        "Partial=false",
    ] {
        habits
            .refuses(Post::of(odd).query(odd), INVALID_QUERY)
            .await;
    }
    let rejected = "recsys_ingest_events_total{table=\"interaction_events\",outcome=\"rejected\"}";
    assert_eq!(habits.service.metric(rejected).await, 15.0 + 200.0 + 6.0);
    let accepted = "recsys_ingest_events_total{table=\"interaction_events\",outcome=\"accepted\"}";
    assert_eq!(habits.service.metric(accepted).await, habits.stored as f64);
}

#[tokio::test]
async fn validate_gives_verdicts_and_keeps_nothing() {
    let mut habits = Habits::start().await;
    for on in [
        "validate=true",
        "validate=1",
        "validate=YES",
        "validate=on",
        "validate",
        "validate=true&ack=received",
        "validate=true&partial=true",
    ] {
        let post = Post::of(on).query(on).body(body(&["a", "b"], 1));
        let reply = habits.send(&post).await;
        assert_eq!(reply.status, 200, "{on}: {}", reply.text);
        assert_eq!(reply.header("x-ingest-ack"), "none");
        let message = &reply.json["rejected"][0]["message"];
        assert_eq!(
            reply.json,
            json!({"ack": "none", "accepted": 0, "valid": 2, "rejected": [{
                "index": 2, "event_id": "bad 0", "code": "missing_field", "field": "item_id", "message": message
            }]}),
            "{on}"
        );
        habits.counts(on).await;
    }
    let post = Post::of("none is valid")
        .query("validate=true")
        .body(body(&[], 2));
    let reply = habits.send(&post).await;
    assert_eq!(
        (reply.status, &reply.json["valid"]),
        (200, &json!(0)),
        "{}",
        reply.text
    );
    let post = Post::of("all are")
        .query("validate=true")
        .body(body(&["a"], 0));
    let reply = habits.send(&post).await;
    assert_eq!(
        reply.json,
        json!({"ack": "none", "accepted": 0, "valid": 1, "rejected": []})
    );
    // Both switches: as a post with partial=false would be answered, where it would be refused.
    let both = "validate=true&partial=false";
    let post = Post::of(both).query(both).body(body(&["a"], 1));
    habits.refuses(post, (422, "some_events_rejected")).await;
    let post = Post::of(both).query(both).body(body(&["a"], 0));
    assert_eq!(habits.send(&post).await.json["valid"], 1);
    // What concerns the request as a whole is as it is otherwise.
    for (post, answer) in [
        (
            Post::of("x").query("validate=true").without("x-api-key"),
            (401, "missing_api_key"),
        ),
        (
            Post::of("x").query("validate=true").body("[]"),
            (400, "no_events"),
        ),
        (
            Post::of("x").query("validate=true").body("[{}"),
            (400, "malformed_body"),
        ),
        (
            Post::of("x").query("validate=true&format=service_v1"),
            (400, "invalid_format"),
        ),
        (Post::of("x").query("validate="), INVALID_QUERY),
        (Post::of("x").query("validate=maybe"), INVALID_QUERY),
    ] {
        habits.refuses(post, answer).await;
    }
    let metrics = habits.service.client().get("/metrics").await.text;
    let events: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("recsys_ingest_events_total{") && !line.ends_with(" 0"))
        .collect();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(
        habits.service.metric("recsys_ingest_queue_bytes").await,
        0.0
    );
    // Off, it is a post as any other.
    habits
        .takes(Post::of("off").query("validate=false"), 1)
        .await;
    // The other table, too.
    let post = Post::of("x")
        .line("POST /v1/exposures?validate=true HTTP/1.1")
        .body(crate::harness::shown("a").to_string());
    assert_eq!(habits.send(&post).await.json["valid"], 1);
    assert_eq!(habits.service.database.count("exposure_events").await, 0);
}
