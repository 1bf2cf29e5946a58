//! What a message becomes, and in which words its faults are told.

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
