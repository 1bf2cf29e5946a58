//! Which lines of the suite's formats are the same event.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::event::table::Table;
use crate::event::testing::{DEMO, NOW, decode};

const ID: &str = "0190163d-8694-439b-aea5-966c26f8ad91";
const HASH: &str = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";

/// An event of each format, as its writer has it.
fn events() -> [(Table, Value); 4] {
    use Table::{Exposures, Interactions};
    let items = json!([{"item_id": "a", "rank": 1}]);
    [
        (
            Exposures,
            json!({"schema_version": "v1", "timestamp": NOW, "request_id": "r1", "surface": "home",
                   "tenant_id": "demo", "subject": {"user_id_hash": HASH}, "items": items}),
        ),
        (
            Exposures,
            json!({"request_id": "r1", "user_id": HASH, "ts": NOW, "items": items,
                   "context": {"surface": "home", "tenant_id": "demo"}}),
        ),
        (
            Exposures,
            json!({"v": 1, "ts": NOW, "tenant": "demo", "surface": "home", "session_id": "s",
                   "user_id": "user", "request_id": "r1", "item_id": "a", "rank": 1}),
        ),
        (
            Interactions,
            json!({"request_id": "r1", "user_id": HASH, "item_id": "a", "event_type": "click",
                   "ts": NOW}),
        ),
    ]
}

/// The events of a format, which is told by a field that it alone has.
fn of_format(field: &str) -> (Table, Value) {
    let mut all = events().into_iter();
    all.find(|(_, event)| event.get(field).is_some()).unwrap()
}

/// The keys of a body's rows.
fn keys(table: Table, body: &str) -> Vec<(Value, Value, Value)> {
    let told = decode(table, body);
    assert_eq!(told.rejection(), None, "{body}");
    let rows = told.rows.iter();
    let key = |row: &Value| {
        (
            row["tenant_id"].clone(),
            row["occurred_at"].clone(),
            row["event_id"].clone(),
        )
    };
    rows.map(key).collect()
}

/// The only row's id.
fn id(table: Table, event: &Value) -> Uuid {
    let keys = keys(table, &event.to_string());
    let [(_, _, id)] = &keys[..] else {
        panic!("not one row: {event}");
    };
    Uuid::try_parse(id.as_str().unwrap()).unwrap()
}

fn with(event: &Value, changes: &Value) -> Value {
    let mut changed = event.clone();
    for (path, value) in changes.as_object().unwrap() {
        *changed.pointer_mut(path).unwrap() = value.clone();
    }
    changed
}

#[test]
fn an_event_id_is_the_events_id_in_every_format() {
    for (table, event) in events() {
        for (named, expected) in [
            (ID.to_owned(), Uuid::try_parse(ID).unwrap()),
            (ID.to_uppercase(), Uuid::try_parse(ID).unwrap()),
            ("e-1".to_owned(), Uuid::new_v5(&DEMO, b"e-1")),
        ] {
            let mut event = event.clone();
            event["event_id"] = json!(named);
            assert_eq!(id(table, &event), expected, "{event}");
            let told = decode(table, &event.to_string());
            assert_eq!(told.rows[0]["meta"]["extra"], Value::Null, "{event}");
            assert!(told.warned().is_empty(), "{event}");
        }
        // A blank id and a null are none.
        for none in [json!(null), json!(" ")] {
            let mut same = event.clone();
            same["event_id"] = none;
            assert_eq!(id(table, &same), id(table, &event), "{same}");
        }
        for (bad, code) in [
            (json!(7), "invalid_type"),
            (json!("x".repeat(201)), "too_long"),
        ] {
            let mut event = event.clone();
            event["event_id"] = bad;
            let told = decode(table, &event.to_string());
            assert_eq!(told.rejection(), Some((code, "event_id")), "{event}");
        }
    }
}

#[test]
fn a_line_that_is_written_in_another_way_is_the_same_event() {
    for (table, event) in events() {
        let text = event.to_string();
        let expected = keys(table, &text);
        let members: Vec<String> = event
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{}: {value}", json!(name)))
            .collect();
        let reversed: Vec<String> = members.iter().rev().cloned().collect();
        let others = [
            format!(" {{ {} }} ", members.join(" ,\t")),
            format!("{{{}}}", reversed.join(",")),
            text.replace("r1", "\\u0072\\u0031"),
            text.replace(NOW, "2026-05-24T12:00:00.0000009+02:00"),
            // What shippers add.
            text.replacen('{', r#"{"host":"a","@timestamp":"x","offset":7,"#, 1),
            text.replacen('{', r#"{"meta":{"a":1},"#, 1),
        ];
        for other in others {
            assert_eq!(keys(table, &other), expected, "{other}");
        }
    }
    // The same in another form: names of the tenant, ids and their hashes, the type's names.
    for (field, changes) in [
        ("timestamp", json!({"/tenant_id": DEMO.to_string()})),
        ("timestamp", json!({"/subject": {"user_id": "user"}})),
        ("timestamp", json!({"/items": []})),
        ("context", json!({"/user_id": "user"})),
        ("context", json!({"/context/tenant_id": DEMO.to_string()})),
        ("v", json!({"/tenant": DEMO.to_string()})),
        ("event_type", json!({"/user_id": " user "})),
    ] {
        let (table, event) = of_format(field);
        let other = with(&event, &changes);
        assert_eq!(id(table, &other), id(table, &event), "{other}");
    }
    let (table, mut event) = of_format("event_type");
    let without = id(table, &event);
    event["value"] = json!(7);
    assert_eq!(id(table, &event), without, "a value names nothing");
    event["request_id"] = json!(ID);
    let lower = id(table, &event);
    event["request_id"] = json!(ID.to_uppercase());
    assert_eq!(id(table, &event), lower);
}

#[test]
fn an_event_that_differs_in_one_part_of_its_name_is_another() {
    for (field, path, value) in [
        ("timestamp", "/request_id", json!("r2")),
        (
            "timestamp",
            "/timestamp",
            json!("2026-05-24T10:00:00.000001Z"),
        ),
        ("timestamp", "/surface", json!("cart")),
        ("timestamp", "/subject", json!({"user_id": "other"})),
        ("timestamp", "/subject", json!({"anonymous_id": "other"})),
        (
            "timestamp",
            "/subject",
            json!({"user_id": "user", "session_id": "s"}),
        ),
        ("timestamp", "/subject", json!({"session_id": "user"})),
        ("timestamp", "/subject", json!({})),
        ("timestamp", "/tenant_id", json!("other")),
        ("context", "/request_id", json!("r2")),
        ("context", "/ts", json!("2026-05-24T10:00:00.000001Z")),
        ("context", "/context/surface", json!("cart")),
        ("context", "/user_id", json!("other")),
        ("context", "/user_id", json!("r1")),
        ("v", "/request_id", json!("r2")),
        ("v", "/request_id", json!(null)),
        ("v", "/ts", json!("2026-05-24T10:00:00.000001Z")),
        ("v", "/surface", json!("cart")),
        ("v", "/user_id", json!("other")),
        ("v", "/session_id", json!("t")),
        ("v", "/item_id", json!("b")),
        ("v", "/rank", json!(2)),
        ("event_type", "/request_id", json!("r2")),
        ("event_type", "/request_id", json!(null)),
        ("event_type", "/ts", json!("2026-05-24T10:00:00.000001Z")),
        ("event_type", "/user_id", json!("other")),
        ("event_type", "/user_id", json!(null)),
        ("event_type", "/item_id", json!("b")),
        ("event_type", "/event_type", json!("conversion")),
    ] {
        let (table, event) = of_format(field);
        let mut changed = event.clone();
        *changed.pointer_mut(path).unwrap() = value;
        assert_ne!(id(table, &changed), id(table, &event), "{changed}");
    }
    let ids = events().map(|(table, event)| id(table, &event));
    assert_eq!(std::collections::HashSet::from(ids).len(), 4);
}

#[test]
fn a_list_is_named_by_its_lines() {
    let (table, line) = of_format("v");
    let of = |changes: Value| {
        let mut line = line.clone();
        line.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        line
    };
    let list = |lines: &[&Value]| {
        let body: Vec<String> = lines.iter().map(ToString::to_string).collect();
        keys(table, &format!("[{}]", body.join(",")))
    };
    let (a, b) = (of(json!({})), of(json!({"item_id": "b", "rank": 2})));
    let shipped = of(json!({"host": "x"}));
    let both = list(&[&a, &b]);
    assert_eq!(both.len(), 1);
    // In any order, with more fields, and with a line twice.
    assert_eq!(list(&[&b, &a]), both);
    assert_eq!(list(&[&shipped, &b]), both);
    assert_eq!(list(&[&a, &b, &shipped, &a]), both);
    let told = decode(table, &format!("[{a},{b},{shipped}]"));
    assert_eq!(told.row_index, [(0, 0), (0, 1), (0, 2)]);
    let items = json!([{"item_id": "a", "rank": 1}, {"item_id": "b", "rank": 2}]);
    assert_eq!(told.rows[0]["response"]["items"], items);
    // The pieces of a list that is cut are events of their own.
    assert_ne!(list(&[&a]), both);
    assert_ne!(list(&[&a]), list(&[&b]));
    // One id for all lines is the list's; ids of lines name their lines.
    let named = |line: &Value, id: &str| {
        let mut line = line.clone();
        line["event_id"] = json!(id);
        line
    };
    let shared = list(&[&named(&a, ID), &named(&b, ID)]);
    assert_eq!(shared[0].2, ID);
    let own = list(&[&named(&a, "1"), &named(&b, "2")]);
    assert_eq!(own, list(&[&named(&b, "2"), &named(&shipped, "1")]));
    for other in [
        list(&[&named(&a, "1"), &named(&b, "3")]),
        list(&[&named(&a, "1"), &b]),
        both,
    ] {
        assert_ne!(own, other);
    }
}
