use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// What a message becomes: `exposure` or `interaction` with its native event, the type that is not
/// collected, or the code and field of a rejection.
fn becomes(message: &Value, is_public: bool, names: &[(&str, &str)]) -> Value {
    let names = names
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()))
        .collect();
    let rules = Rules {
        is_public,
        is_tenant_a_guess: false,
        event_names: &names,
        messages_max: 10,
    };
    let body = json!({"batch": [message]}).to_string();
    let found = Messages::read(body.as_bytes(), Call::Batch, rules).unwrap();
    assert_eq!(found.len(), 1);
    if let Some(rejected) = found.rejected.first() {
        let Rejection { code, field, .. } = &rejected.rejection;
        return json!([code.as_str(), field.as_deref().unwrap_or_default()]);
    }
    if let Some((kind, 1)) = found.not_collected.first() {
        assert!(found.exposures.is_empty() && found.interactions.is_empty());
        return kind.as_str().into();
    }
    let (table, events) = match found.exposures.is_empty() {
        false => ("exposure", found.exposures),
        true => ("interaction", found.interactions),
    };
    let mut native: Value = serde_json::from_str(&events.json).unwrap();
    json!({table: native[0].take()})
}

fn track(event: &str, properties: Value) -> Value {
    json!({"type": "track", "messageId": "m1", "timestamp": "2026-05-24T10:00:00Z",
           "userId": "ada", "anonymousId": "an", "event": event, "properties": properties,
           "context": {"ip": "192.0.2.1", "userAgent": "x", "traits": {"email": "a@b.example"}},
           "integrations": {}})
}

/// The native event of [`track`], with more fields.
fn native(more: Value) -> Value {
    let mut event = json!({"event_id": "m1", "occurred_at": "2026-05-24T10:00:00Z",
                           "request_id": "m1", "user_id": "ada", "anonymous_id": "an"});
    for (key, value) in more.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

#[test]
fn each_event_of_a_shop_becomes_the_native_one() {
    let list = json!([{"product_id": "a", "position": 1, "price": 5}, {"sku": 7, "position": "2", "score": 0.5}]);
    for (message, expected) in [
        (
            track(
                "Product Viewed",
                json!({"product_id": "a", "request_id": "r", "surface": "home", "name": "A"}),
            ),
            json!({"interaction": native(json!({"event_type": "view", "item_id": "a", "request_id": "r", "surface": "home"}))}),
        ),
        (
            track(
                "Product Clicked",
                json!({"sku": 12, "recommendation_id": "r", "list_id": 3, "position": 0}),
            ),
            json!({"interaction": native(json!({"event_type": "click", "item_id": "12", "request_id": "r", "surface": "3", "position": 0}))}),
        ),
        (
            track(
                "Product Added",
                json!({"product_id": "a", "query_id": 9, "category": "Games/Cards", "value": "12.50", "price": 3}),
            ),
            json!({"interaction": native(json!({"event_type": "add_to_cart", "item_id": "a", "request_id": "9", "surface": "Games_Cards", "value": 12.5}))}),
        ),
        (
            track(
                "Order Completed",
                json!({"order_id": 77, "revenue": 30.5, "total": 40, "currency": "EUR", "session_id": "s",
                  "products": [{"product_id": "a", "price": "10.25", "quantity": 2}, {"product_id": "b", "price": 10}]}),
            ),
            json!({"interaction": native(json!({"event_type": "purchase", "session_id": "s",
                  "order": {"id": "77", "value": 30.5, "currency": "EUR"},
                  "items": [{"item_id": "a", "price": 10.25, "quantity": 2}, {"item_id": "b", "price": 10}]}))}),
        ),
        (
            track(
                "Order Completed",
                json!({"product_id": "a", "price": 3, "quantity": 2, "total": 6}),
            ),
            json!({"interaction": native(json!({"event_type": "purchase", "items": [{"item_id": "a", "price": 3, "quantity": 2}]}))}),
        ),
        (
            track(
                "Product List Viewed",
                json!({"list_id": "home", "products": list}),
            ),
            json!({"exposure": native(json!({"surface": "home",
                  "items": [{"item_id": "a", "rank": 1}, {"item_id": "7", "rank": 2, "score": 0.5}]}))}),
        ),
        // Whole numbers as clients with doubles alone write them.
        (
            track(
                "Product List Viewed",
                json!({"list_id": "home", "products": [{"product_id": "a", "position": 1.0}, {"product_id": "b", "position": "2.00"}]}),
            ),
            json!({"exposure": native(json!({"surface": "home", "items": [{"item_id": "a", "rank": 1}, {"item_id": "b", "rank": 2}]}))}),
        ),
        (
            track(
                "Product Clicked",
                json!({"product_id": "a", "position": 3.0, "value": 2.50}),
            ),
            json!({"interaction": native(json!({"event_type": "click", "item_id": "a", "position": 3, "value": 2.5}))}),
        ),
        (
            track(
                "Product Clicked",
                json!({"product_id": "a", "position": 3.5}),
            ),
            json!({"interaction": native(json!({"event_type": "click", "item_id": "a", "position": 3.5}))}),
        ),
        // What was viewed, clicked or added is the event's own product: the list is the cart, or what
        // stood around it.
        (
            track(
                "Product Added",
                json!({"product_id": "a", "position": 2, "value": 3, "products": [{"product_id": "b"}, {"product_id": "c"}]}),
            ),
            json!({"interaction": native(json!({"event_type": "add_to_cart", "item_id": "a", "position": 2, "value": 3}))}),
        ),
        (
            track("Product Viewed", json!({"sku": "a", "products": []})),
            json!({"interaction": native(json!({"event_type": "view", "item_id": "a"}))}),
        ),
        (
            track(
                "Product Clicked",
                json!({"products": [{"product_id": "b"}]}),
            ),
            json!({"interaction": native(json!({"event_type": "click", "items": [{"item_id": "b"}]}))}),
        ),
        // An order has the products of its list, if there is one.
        (
            track(
                "Order Completed",
                json!({"product_id": "a", "products": [{"product_id": "b"}]}),
            ),
            json!({"interaction": native(json!({"event_type": "purchase", "items": [{"item_id": "b"}]}))}),
        ),
        (
            track(
                "Order Completed",
                json!({"product_id": "a", "price": 3, "products": []}),
            ),
            json!({"interaction": native(json!({"event_type": "purchase", "items": [{"item_id": "a", "price": 3}]}))}),
        ),
        // Who counts from 0 has the ranks of the list's order.
        (
            track(
                "Product List Viewed",
                json!({"surface": "home", "products": [{"product_id": "a", "position": 0}, {"product_id": "b", "position": 1}]}),
            ),
            json!({"exposure": native(json!({"surface": "home", "items": [{"item_id": "a"}, {"item_id": "b"}]}))}),
        ),
        (
            track("Product Searched", json!({"query": "x"})),
            json!("track"),
        ),
        (
            json!({"type": "identify", "userId": "ada", "traits": {"email": "a@b.example"}}),
            json!("identify"),
        ),
        (json!({"type": "Page", "name": "Home"}), json!("page")),
        (json!({"type": "screen"}), json!("screen")),
        (json!({"type": "alias"}), json!("alias")),
        (json!({"type": "group"}), json!("group")),
        (
            json!({"type": "tracks", "event": "Product Viewed"}),
            json!("other"),
        ),
        (json!({}), json!("other")),
        (json!(7), json!(["not_an_object", ""])),
        (json!({"type": "track"}), json!(["missing_field", "event"])),
        (
            json!({"type": "track", "event": 7}),
            json!(["invalid_type", "event"]),
        ),
        (json!({"type": 7}), json!(["invalid_type", "type"])),
        (
            track("Product Viewed", json!("none")),
            json!(["invalid_type", "properties"]),
        ),
        (
            track("Order Completed", json!({"order_id": "o"})),
            json!(["missing_field", "properties.products"]),
        ),
    ] {
        assert_eq!(becomes(&message, false, &[]), expected, "{message}");
    }
}

#[test]
fn a_page_views_no_exposures_and_a_tenant_names_more_events() {
    let list = track(
        "Product List Viewed",
        json!({"category": "home", "products": [{"product_id": "a", "position": 1, "price": 9}]}),
    );
    let impressions = native(json!({"surface": "home", "event_type": "impression",
                                    "items": [{"item_id": "a", "position": 1}]}));
    assert_eq!(
        becomes(&list, true, &[]),
        json!({"interaction": impressions})
    );
    let own = track("Wish Made", json!({"product_id": "a"}));
    assert_eq!(becomes(&own, false, &[]), "track");
    for names in [
        &[("Wish Made", "add_to_cart")][..],
        &[("Product Viewed", "click"), ("Wish Made", "add_to_cart")],
    ] {
        let found = becomes(&own, false, names);
        assert_eq!(found["interaction"]["event_type"], "add_to_cart");
    }
    // A tenant's own meaning of a name counts first.
    let viewed = track("Product Viewed", json!({"product_id": "a"}));
    let found = becomes(&viewed, false, &[("Product Viewed", "impression")]);
    assert_eq!(found["interaction"]["event_type"], "impression");
}

#[test]
fn the_first_place_that_says_something_counts() {
    let message = json!({"type": "track", "event": "Product Viewed", "messageId": 5, "userId": 7, "timestamp": null,
        "originalTimestamp": "2026-05-24T10:00:00Z", "context": {"sessionId": 1716544800},
        "properties": {"product_id": "a", "session_id": "no", "surface": " ", "list_id": "l", "category": "c", "request_id": ""}});
    let expected = json!({"event_id": "5", "occurred_at": "2026-05-24T10:00:00Z", "request_id": "5", "user_id": "7",
        "session_id": "1716544800", "surface": "l", "event_type": "view", "item_id": "a"});
    assert_eq!(
        becomes(&message, false, &[]),
        json!({"interaction": expected})
    );
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
fn what_is_wrong_with_a_native_event_is_told_in_the_words_of_its_message() {
    for (event, properties, field, expected) in [
        (
            "Product Viewed",
            json!({"product_id": "a"}),
            "event_id",
            "messageId",
        ),
        (
            "Product Viewed",
            json!({}),
            "item_id",
            "properties.product_id",
        ),
        (
            "Product Viewed",
            json!({"list_id": "x"}),
            "surface",
            "properties.list_id",
        ),
        ("Product Viewed", json!({}), "surface", "properties.surface"),
        ("Product Viewed", json!({}), "occurred_at", "timestamp"),
        (
            "Product Viewed",
            json!({"query_id": "q"}),
            "request_id",
            "properties.query_id",
        ),
        (
            "Product Viewed",
            json!({"session_id": "q"}),
            "session_id",
            "properties.session_id",
        ),
        (
            "Order Completed",
            json!({"products": [1]}),
            "items[0].price",
            "properties.products[0].price",
        ),
        (
            "Order Completed",
            json!({"products": [1]}),
            "items[3].item_id",
            "properties.products[3].product_id",
        ),
        (
            "Order Completed",
            json!({"product_id": 1}),
            "items[0].price",
            "properties.price",
        ),
        (
            "Order Completed",
            json!({"product_id": 1, "products": []}),
            "items[0].price",
            "properties.price",
        ),
        (
            "Order Completed",
            json!({"products": []}),
            "items",
            "properties.products",
        ),
        (
            "Order Completed",
            json!({"total": 1}),
            "order.value",
            "properties.total",
        ),
        (
            "Product List Viewed",
            json!({}),
            "items",
            "properties.products",
        ),
        (
            "Product List Viewed",
            json!({"products": [1]}),
            "items[0].rank",
            "properties.products[0].position",
        ),
    ] {
        let text = track(event, properties).to_string();
        let members = walk::members(&text).unwrap();
        let message = Message {
            members: &members,
            made_id: None,
        };
        assert_eq!(names::of(&message, field), expected, "{text}");
    }
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
