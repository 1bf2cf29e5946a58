//! Events of several items: their rows, their values, and what is refused.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::event::decode::DecodeError;
use crate::event::table::Table;
use crate::event::testing::{NOW, ROWS_MAX, Told, decode, decode_as};

const ID: &str = "0190163d-8694-439b-aea5-966c26f8ad91";

fn event(items: &Value) -> Value {
    json!({"event_id": ID, "occurred_at": NOW, "event_type": "purchase", "items": items})
}

fn decoded(event: &Value) -> Told {
    decode(Table::Interactions, &event.to_string())
}

#[test]
fn each_item_is_a_row_with_the_events_fields_and_its_own() {
    let mut event = event(&json!([
        {"item_id": "a", "position": 3, "value": 5, "price": 7, "quantity": 2},
        {"item_id": "b", "price": 19.99, "quantity": 3, "color": "red"},
        {"item_id": "a"}
    ]));
    event["order"] = json!({"id": "o-1", "value": 64.97, "currency": "EUR"});
    event["user_id"] = json!("user");
    event["surface"] = json!("cart");
    event["meta"] = json!({"page": 3, "price": "theirs", "order": "theirs"});
    event["campaign"] = json!("spring");
    let told = decoded(&event);
    assert_eq!(told.rejection(), None);
    assert_eq!(told.row_index, [(0, 0), (1, 0), (2, 0)]);
    let id = Uuid::try_parse(ID).unwrap();
    let order = json!({"id": "o-1", "value": 64.97, "currency": "EUR"});
    let moved = json!({"price": "theirs", "order": "theirs"});
    let extra = json!({"campaign": "spring", "meta": moved});
    let with_color = json!({"campaign": "spring", "meta": moved, "items": {"color": "red"}});
    for (place, item_id, position, value, meta) in [
        (
            0,
            "a",
            json!(3),
            json!(5.0),
            json!({"page": 3, "order": order, "price": 7, "quantity": 2, "extra": extra}),
        ),
        (
            1,
            "b",
            Value::Null,
            json!(59.97),
            json!({"page": 3, "order": order, "price": 19.99, "quantity": 3, "extra": with_color}),
        ),
        (
            2,
            "a",
            Value::Null,
            Value::Null,
            json!({"page": 3, "order": order, "extra": extra}),
        ),
    ] {
        let row = &told.rows[place];
        let expected = Uuid::new_v5(&id, format!("/{place}").as_bytes()).to_string();
        assert_eq!(row["event_id"], expected);
        assert_eq!(row["item_id"], item_id);
        assert_eq!(row["position"], position);
        assert_eq!(row["value"], value);
        assert_eq!(row["meta"], meta);
        assert_eq!(row["occurred_at"], NOW);
        assert_eq!(row["surface"], "cart");
        assert_eq!(row["event_type"], "purchase");
        assert_eq!(row["user_key"], told.rows[0]["user_key"]);
        assert!(row["user_key"].is_string());
    }
    let warned = [
        ("unknown_field", "campaign"),
        ("unknown_field", "items.color"),
        ("moved_field", "meta.order"),
        ("moved_field", "meta.price"),
    ];
    assert_eq!(told.warned(), warned);
}

#[test]
fn one_item_keeps_the_events_id_and_a_list_of_one_does_not() {
    let single = json!({
        "event_id": ID, "occurred_at": NOW, "event_type": "purchase", "item_id": "a", "value": 5,
        "order": {"id": "o-1"}
    });
    let told = decoded(&single);
    assert_eq!(told.rows[0]["event_id"], ID);
    assert_eq!(told.rows[0]["meta"], json!({"order": {"id": "o-1"}}));
    let list = decoded(&event(&json!([{"item_id": "a", "value": 5}])));
    assert_eq!(list.rows.len(), 1);
    let id = Uuid::new_v5(&Uuid::try_parse(ID).unwrap(), b"/0").to_string();
    assert_eq!(list.rows[0]["event_id"], id);
    assert_eq!(list.rows[0]["meta"], Value::Null);
    // A retry has the same ids, for any name of the event.
    let mut named = event(&json!([{"item_id": "a"}, {"item_id": "b"}]));
    named["event_id"] = json!("order-7");
    let ids = |told: Told| -> Vec<Value> {
        told.rows
            .iter()
            .map(|row| row["event_id"].clone())
            .collect()
    };
    assert_eq!(ids(decoded(&named)), ids(decoded(&named)));
    // Without an id each row has one all the same.
    drop(named.as_object_mut().unwrap().remove("event_id"));
    let ids = ids(decoded(&named));
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_bad_item_rejects_the_event_and_is_named() {
    let mut cases = Vec::new();
    for (bad, code, field) in [
        (json!(7), "invalid_type", ""),
        (json!(null), "invalid_type", ""),
        (json!({}), "missing_field", ".item_id"),
        (json!({"item_id": " "}), "missing_field", ".item_id"),
        (json!({"item_id": 7}), "invalid_type", ".item_id"),
        (json!({"item_id": "x".repeat(513)}), "too_long", ".item_id"),
        (
            json!({"item_id": "b", "position": -1}),
            "number_out_of_range",
            ".position",
        ),
        (
            json!({"item_id": "b", "position": 1.5}),
            "invalid_type",
            ".position",
        ),
        (
            json!({"item_id": "b", "quantity": "2"}),
            "invalid_type",
            ".quantity",
        ),
        (
            json!({"item_id": "b", "quantity": 1e12}),
            "number_out_of_range",
            ".quantity",
        ),
        (
            json!({"item_id": "b", "price": true}),
            "invalid_type",
            ".price",
        ),
        (
            json!({"item_id": "b", "price": {}}),
            "invalid_type",
            ".price",
        ),
        (
            json!({"item_id": "b", "price": 1e12}),
            "number_out_of_range",
            ".price",
        ),
        (
            json!({"item_id": "b", "price": 1e7, "quantity": 1e6}),
            "number_out_of_range",
            ".price",
        ),
        (
            json!({"item_id": "b", "value": "5"}),
            "invalid_type",
            ".value",
        ),
        (
            json!({"item_id": "b", "value": -1e12}),
            "number_out_of_range",
            ".value",
        ),
    ] {
        let mut list = vec![json!({"item_id": "a"}); 5];
        list[3] = bad;
        cases.push((json!(list), code, format!("items[3]{field}")));
    }
    cases.push((json!([]), "invalid_value", "items".to_owned()));
    cases.push((json!({"item_id": "a"}), "invalid_type", "items".to_owned()));
    cases.push((json!("a"), "invalid_type", "items".to_owned()));
    let many = vec![json!({"item_id": "a"}); 101];
    cases.push((json!(many), "too_many_items", "items".to_owned()));
    let mut many_and_bad = many;
    many_and_bad[0] = json!(7);
    cases.push((json!(many_and_bad), "too_many_items", "items".to_owned()));
    for (list, code, field) in cases {
        let told = decoded(&event(&list));
        assert_eq!(told.rejection(), Some((code, &*field)), "{list}");
        assert_eq!(told.rows.len(), 0);
        assert_eq!(told.warned(), [], "{list}");
    }
    let twice = r#"{"item_id":"a","price":1,"price":2}"#;
    let body = event(&json!(["@"])).to_string().replace("\"@\"", twice);
    let told = decode(Table::Interactions, &body);
    assert_eq!(
        told.rejection(),
        Some(("duplicate_field", "items[0].price"))
    );
    let neither = json!({"event_type": "click"});
    let told = decoded(&neither);
    assert_eq!(told.rejection(), Some(("missing_field", "item_id")));
}

#[test]
fn an_order_has_an_id_and_is_kept_as_it_came() {
    for (order, rejection) in [
        (json!({"id": "o"}), None),
        (
            json!({"id": "o", "value": -5.5, "currency": "EUR", "coupon": "x"}),
            None,
        ),
        (json!({"id": "o", "value": null, "currency": null}), None),
        (json!(null), None),
        (json!("o"), Some(("invalid_type", "order"))),
        (json!([]), Some(("invalid_type", "order"))),
        (json!({}), Some(("missing_field", "order.id"))),
        (json!({"id": ""}), Some(("missing_field", "order.id"))),
        (json!({"id": 7}), Some(("invalid_type", "order.id"))),
        (
            json!({"id": "x".repeat(513)}),
            Some(("too_long", "order.id")),
        ),
        (
            json!({"id": "o", "value": "5"}),
            Some(("invalid_type", "order.value")),
        ),
        (
            json!({"id": "o", "value": 1e12}),
            Some(("number_out_of_range", "order.value")),
        ),
        (
            json!({"id": "o", "currency": 978}),
            Some(("invalid_type", "order.currency")),
        ),
    ] {
        let mut event = event(&json!([{"item_id": "a"}]));
        event["order"] = order.clone();
        let told = decoded(&event);
        assert_eq!(told.rejection(), rejection, "{order}");
        if rejection.is_none() {
            let kept = &told.rows[0]["meta"]["order"];
            assert_eq!(kept, &order);
            let coupon = [("unknown_field", "order.coupon")];
            let has_coupon = order.get("coupon").is_some();
            assert_eq!(told.warned(), coupon[usize::from(!has_coupon)..], "{order}");
        }
    }
    // No raw id is kept in an order or an item.
    let mut event = event(&json!([{"item_id": "a", "userId": "ada", "for": {"user_id": "ada"}}]));
    event["order"] = json!({"id": "o", "user_id": "ada"});
    let told = decoded(&event);
    assert!(
        !json!(told.rows).to_string().contains("\"ada\""),
        "{told:?}"
    );
}

#[test]
fn strict_names_the_member_of_an_item_or_an_order_that_is_not_known() {
    for (items, order, field) in [
        (
            json!([{"item_id": "a", "price": 1}]),
            json!({"id": "o", "value": 1}),
            None,
        ),
        (
            json!([{"item_id": "a"}, {"item_id": "a", "prize": 1}]),
            json!(null),
            Some("items[1].prize"),
        ),
        (
            json!([{"item_id": "a"}]),
            json!({"id": "o", "valeu": 1}),
            Some("order.valeu"),
        ),
    ] {
        let mut event = event(&items);
        event["order"] = order;
        let body = event.to_string();
        let told = decode_as(Table::Interactions, None, true, &body).unwrap();
        let expected = field.map(|field| ("unknown_field", field));
        assert_eq!(told.rejection(), expected, "{event}");
    }
}

/// Texts of numbers, so that none passes through a float.
#[test]
fn a_rows_value_is_its_value_or_the_product_rounded_once() {
    for (members, value, is_rounded) in [
        ("", None, false),
        (r#","quantity":3"#, None, false),
        (r#","value":0,"price":5"#, Some("0.0"), false),
        (r#","value":null,"price":5"#, Some("5.0"), false),
        (r#","price":5"#, Some("5.0"), false),
        (r#","price":5,"quantity":null"#, Some("5.0"), false),
        (r#","price":0.1,"quantity":3"#, Some("0.3"), false),
        (
            r#","price":0.0000005,"quantity":2"#,
            Some("0.000001"),
            false,
        ),
        (r#","price":0.333333333,"quantity":3"#, Some("1.0"), true),
        (r#","price":-2.5,"quantity":2"#, Some("-5.0"), false),
        (r#","price":2.5,"quantity":0"#, Some("0.0"), false),
        (r#","price":1e3,"quantity":25e-1"#, Some("2500.0"), false),
        (
            r#","price":999999999999.999999"#,
            Some("999999999999.999999"),
            false,
        ),
        (r#","value":1.0000005"#, Some("1.000001"), true),
    ] {
        let item = format!(r#"{{"item_id":"a"{members}}}"#);
        let body = event(&json!(["@"])).to_string().replace("\"@\"", &item);
        let told = decode(Table::Interactions, &body);
        let expected = value.map(|value| value.parse::<f64>().unwrap());
        assert_eq!(told.rows[0]["value"].as_f64(), expected, "{item}");
        let warned = [("value_rounded", "items.value")];
        assert_eq!(told.warned(), warned[usize::from(!is_rounded)..], "{item}");
    }
}

#[test]
fn rows_count_against_the_limit_on_events() {
    let list = |count| event(&json!(vec![json!({"item_id": "a"}); count]));
    let bad = json!({"event_type": "stare"});
    let full: Vec<_> = vec![list(100); ROWS_MAX / 100];
    let body =
        |events: &[Value]| decode_as(Table::Interactions, None, false, &json!(events).to_string());
    assert_eq!(body(&full).unwrap().rows.len(), ROWS_MAX);
    for (more, fit) in [(list(1), 10), (bad.clone(), 10), (list(100), 10)] {
        let events = [&full[..], &[more]].concat();
        let error = DecodeError::TooManyRows {
            events_that_fit: fit,
        };
        assert_eq!(body(&events).unwrap_err(), error);
    }
    let events = [&full[..9], &[list(99), bad]].concat();
    assert_eq!(body(&events).unwrap().rows.len(), 999);
}

#[test]
fn what_rows_share_is_bounded() {
    let mut event = event(&json!(vec![json!({"item_id": "a"}); 100]));
    event["meta"] = json!({"pad": "x".repeat(41_900)});
    assert_eq!(decoded(&event).rejection(), None);
    event["meta"] = json!({"pad": "x".repeat(42_000)});
    assert_eq!(decoded(&event).rejection(), Some(("event_too_large", "")));
}
