mod mapping;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn track(event: &str, properties: Value) -> Value {
    json!({"type": "track", "messageId": "m1", "timestamp": "2026-05-24T10:00:00Z",
           "userId": "ada", "anonymousId": "an", "event": event, "properties": properties,
           "context": {"ip": "192.0.2.1", "userAgent": "x", "traits": {"email": "a@b.example"}},
           "integrations": {}})
}

#[test]
fn members_that_are_not_read_take_no_memory() {
    let many = format!(
        "{{{}\"event\": \"x\"}}",
        "\"\":1,\"type\":2,".repeat(100_000)
    );
    let members = message::members(&many).unwrap();
    let names: Vec<_> = members.iter().map(|member| &*member.key).collect();
    assert_eq!(names, ["type", "type", "event"]);
    assert!(members.capacity() < 16);
    assert!(message::members("[]").is_none());
}

#[test]
fn where_the_tenant_is_a_guess_what_would_be_an_event_is_rejected() {
    let names = BTreeMap::new();
    let rules = Rules {
        is_public: false,
        is_tenant_a_guess: true,
        event_names: &names,
        messages_max: 10,
    };
    let body = json!({"batch": [
        track("Product Viewed", json!({"product_id": "a"})),
        track("Product List Viewed", json!({"list_id": "home", "products": []})),
        track("Product Viewed", json!({})),
        track("Signed Up", json!({})),
        {"type": "page"}
    ]});
    let found = Messages::read(body.to_string().as_bytes(), Call::Batch, rules).unwrap();
    let rejected = found.rejected.iter();
    let rejected: Vec<_> = rejected
        .map(|one| (one.index, one.rejection.code.as_str()))
        .collect();
    assert_eq!(rejected, [0, 1, 2].map(|index| (index, "missing_tenant")));
    assert_eq!(
        found.not_collected,
        [(Type::Track, 1), (Type::Page, 1)],
        "what is not kept needs no tenant"
    );
    assert!(found.exposures.is_empty() && found.interactions.is_empty());
}

#[test]
fn a_body_is_read_by_its_route() {
    let names = BTreeMap::new();
    let rules = Rules {
        is_public: false,
        is_tenant_a_guess: false,
        event_names: &names,
        messages_max: 2,
    };
    let read = |body: &str, call| Messages::read(body.as_bytes(), call, rules);
    let one = track("Product Viewed", json!({"product_id": "a"}));
    let batch = json!({"batch": [one, {"type": "page"}], "sentAt": "x"}).to_string();
    for (body, call, interactions) in [
        (batch.clone(), Call::Batch, 1),
        (batch.clone(), Call::One(Type::Track), 1),
        (format!("\u{feff} {one} "), Call::One(Type::Track), 1),
        (one.to_string(), Call::One(Type::Identify), 0),
        (r#"{"batch": []}"#.to_owned(), Call::Batch, 0),
    ] {
        let found = read(&body, call).unwrap();
        assert_eq!(found.interactions.places.len(), interactions, "{body}");
    }
    for (body, call, why) in [
        ("", Call::Batch, "no events"),
        ("[]", Call::Batch, "is JSON and no object"),
        (" 7 ", Call::One(Type::Track), "is JSON and no object"),
        ("[", Call::Batch, "not valid JSON: expected an object"),
        ("[] []", Call::Batch, "not valid JSON: expected an object"),
        // Of two lists one would be passed over.
        (
            r#"{"batch": [1], "batch": [2]}"#,
            Call::Batch,
            "the member batch of the body stands twice",
        ),
        (
            r#"{"batch": null, "b\u0061tch": [2]}"#,
            Call::One(Type::Track),
            "the member batch of the body stands twice",
        ),
        ("batch=1", Call::Batch, "expected an object"),
        ("{", Call::Batch, "not valid JSON"),
        ("{} {}", Call::One(Type::Track), "there is more"),
        ("{}", Call::Batch, "has no batch"),
        (r#"{"batch": {}}"#, Call::Batch, "has no batch"),
        (r#"{"batch": [1, 2, 3]}"#, Call::Batch, "more than 2"),
        ("\u{1f}\u{8b}\u{8}", Call::Batch, "expected an object"),
    ] {
        let said = read(body, call).unwrap_err().to_string();
        assert!(said.contains(why), "{body}: {said}");
    }
    assert!(matches!(
        Messages::read(b"\x1f\x8b\x08\0", Call::Batch, rules),
        Err(BodyError::Compressed("gzip"))
    ));
}

#[test]
fn the_key_stands_in_the_body_or_in_its_first_message() {
    for (body, key) in [
        (r#"{"writeKey": "k", "batch": []}"#, Some("k")),
        (r#"{"batch": [{"writeKey": "k"}]}"#, Some("k")),
        (r#"{"writeKey": "\u006b"}"#, Some("k")),
        (r#"{"writeKey": " ", "batch": [7]}"#, None),
        (r#"{"writeKey": 7}"#, None),
        ("{}", None),
    ] {
        assert_eq!(
            write_key(body.as_bytes()).unwrap().as_deref(),
            key,
            "{body}"
        );
    }
    assert!(write_key(b"[").is_err());
    let said = write_key(br#"{"writeKey": "k", "writeKey": "l"}"#).unwrap_err();
    assert!(said.to_string().contains("the member writeKey of the body"));
}

#[test]
fn messages_without_an_id_are_the_same_events_again_where_a_body_is_for_both_tables() {
    let nameless = |event: &str| {
        let mut message = track(
            event,
            json!({"product_id": "a", "request_id": "r1", "surface": "home", "products": [{"product_id": "a"}]}),
        );
        message.as_object_mut().unwrap().remove("messageId");
        message
    };
    let ids = |messages: &[Value]| {
        let (body, names) = (json!({"batch": messages}).to_string(), BTreeMap::new());
        let rules = Rules {
            is_public: false,
            is_tenant_a_guess: false,
            event_names: &names,
            messages_max: 10,
        };
        let found = Messages::read(body.as_bytes(), Call::Batch, rules).unwrap();
        let mut ids = Vec::new();
        for events in [found.exposures, found.interactions] {
            let events: Vec<Value> = serde_json::from_str(&events.json).unwrap_or_default();
            ids.extend(events.iter().map(|event| event["event_id"].clone()));
        }
        ids
    };
    let (list, click) = (nameless("Product List Viewed"), nameless("Product Clicked"));
    let named = track("Product Clicked", json!({"product_id": "a"}));
    let mixed = [list.clone(), click.clone(), named, click.clone()];
    let first = ids(&mixed);
    assert_eq!(first, ids(&mixed));
    assert_eq!(first[2], "m1");
    let different: std::collections::HashSet<_> = first.iter().map(Value::to_string).collect();
    assert_eq!(
        different.len(),
        4,
        "two of the same text are two events: {first:?}"
    );
    assert!(first.iter().all(Value::is_string), "{first:?}");
    // Of one record all or nothing is stored: each is new, as native events are.
    for alone in [[click.clone(), click], [list.clone(), list]] {
        assert_eq!(ids(&alone), [Value::Null, Value::Null]);
    }
}
