//! Raw ids are hashed wherever and however they are named, and nothing else is touched.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::table::Table;
use crate::event::testing::{NOW, decode};

/// Names of raw ids, in spellings of clients.
const IDS: [&str; 10] = [
    "user_id", "session_id", "anonymous_id", "userId", "UserID", "USER-ID", "Session-Id",
    "anonymous id", "_sessionid", "uséer.id",
];

/// Names that are none.
const OTHERS: [&str; 12] = [
    "item_id", "id", "_id", "", "a", "user", "user_ids", "user_id2", "xuser_id", "user_id_hash",
    "a\"user_id", "a\"\n\u{8}",
];

fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select([&IDS[..], &OTHERS].concat())
}

/// The expected result of scrubbing, value by value.
fn scrubbed(value: &serde_json::Value, pseudonymizer: &Pseudonymizer) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter_map(|(name, value)| {
                    if !IDS.contains(&name.as_str()) {
                        return Some((name.clone(), scrubbed(value, pseudonymizer)));
                    }
                    let id = value.as_str().map_or(value.to_string(), str::to_owned);
                    let hash = pseudonymizer.hash(&id)?;
                    Some((format!("{name}_hash"), hex::encode(hash).into()))
                })
                .collect(),
        ),
        Value::Array(elements) => elements
            .iter()
            .map(|value| scrubbed(value, pseudonymizer))
            .collect(),
        other => other.clone(),
    }
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = proptest::sample::select(vec![
        json!("ada"),
        json!(" "),
        json!("user_id\\"),
        json!("userId:"),
        json!(7),
        json!(null),
        json!([]),
        json!({}),
    ]);
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((name(), inner), 0..4).prop_map(|members| {
                let members = members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                serde_json::Value::Object(members.collect())
            }),
        ]
    })
}

#[test]
fn a_name_is_that_of_a_raw_id_in_any_spelling_and_no_other_is() {
    for name in IDS {
        assert!(is_spelled_like_an_id(name), "{name}");
    }
    for name in OTHERS {
        assert!(!is_spelled_like_an_id(name), "{name}");
    }
}

/// Every place of an event that keeps what it does not know.
#[test]
fn no_raw_id_is_kept_in_any_spelling_at_any_depth() {
    use Table::{Assignments, Exposures, Interactions};
    const RAW: &str = "ada@example.org";
    let ids = json!({
        "userId": RAW, "list": [{"Session-ID": RAW}, [{"anonymous id": {"mail": RAW}}]]
    });
    let item = json!({"item_id": "a", "why": ids, "userId": RAW});
    for (table, event) in [
        (
            Exposures,
            json!({"occurred_at": NOW, "request_id": "r", "surface": "home", "items": [item],
                   "context": ids, "experiment": ids, "request": ids, "meta": ids, "foo": ids}),
        ),
        (
            Exposures,
            json!({"schema_version": "v1", "timestamp": NOW, "request_id": "r", "surface": "home",
                   "subject": ids, "context": ids, "experiment": ids, "items": [item], "foo": ids}),
        ),
        (
            Exposures,
            json!({"ts": NOW, "request_id": "r", "items": [item], "error": ids, "foo": ids,
                   "context": {"surface": "home", "userId": RAW, "more": ids}}),
        ),
        (
            Exposures,
            json!({"v": 1, "ts": NOW, "surface": "home", "session_id": "s", "item_id": "a",
                   "foo": ids}),
        ),
        (
            Interactions,
            json!({"occurred_at": NOW, "event_type": "purchase", "items": [item], "meta": ids,
                   "order": {"id": "o", "userId": RAW, "more": ids}, "foo": ids, "context": ids}),
        ),
        (
            Interactions,
            json!({"ts": NOW, "event_type": "click", "item_id": "a", "foo": ids}),
        ),
        (
            Assignments,
            json!({"ts": NOW, "request_id": "r", "experiment_id": "x", "variant": "A", "foo": ids,
                   "context": {"userId": RAW, "more": ids}}),
        ),
    ] {
        let text = event.to_string();
        let escaped = text.replace("userId", "user\\u0049d");
        let escaped = escaped.replace("Session", "\\u0053ession");
        for text in [text, escaped] {
            let told = decode(table, &text);
            assert_eq!(told.rejection(), None, "{text}");
            let rows = json!(told.rows).to_string();
            assert!(rows.contains("userId_hash"), "{rows}");
            assert!(!rows.contains(RAW), "{rows}");
        }
    }
}

proptest! {
    #[test]
    fn every_raw_id_is_hashed_and_all_else_is_kept(value in value()) {
        let pseudonymizer = Pseudonymizer::new(b"salt");
        let mut out = String::new();
        push_scrubbed(&mut out, &value.to_string(), &pseudonymizer);
        let found: serde_json::Value = serde_json::from_str(&out).unwrap();
        prop_assert_eq!(found, scrubbed(&value, &pseudonymizer));
    }

    #[test]
    fn a_value_is_walked_only_if_it_names_a_raw_id_or_has_an_escape(
        members in proptest::collection::vec(
            (
                name(),
                proptest::sample::select(vec!["", " ", "\r\n\t "]),
                proptest::sample::select(vec![
                    "7", "\"user_id\"", "\"userId:\"", "\":\"", "\" : : \"", "[\"user_id\",\":x\"]",
                    "[7,\":\"]", "\"^8xzXZ<>|~é\"", "{\"\":{}}",
                ]),
            ),
            0..5,
        ),
        escape in proptest::option::weighted(0.1, Just("\\n")),
    ) {
        let is_plain = |name: &str| !name.contains(['"', '\n', '\u{8}']);
        let members: Vec<_> = members.into_iter().filter(|(name, ..)| is_plain(name)).collect();
        let texts = members.iter().map(|(name, space, value)| format!("\"{name}\"{space}:{space}{value}"));
        let texts: Vec<String> = texts.collect();
        let object = format!("{{{}}}", texts.join(","));
        let raw = format!("[\"{}\",{object}]", escape.unwrap_or_default());
        let named = escape.is_some() || members.iter().any(|(name, ..)| IDS.contains(name));
        prop_assert_eq!(may_name_ids(&raw), named, "{}", raw);
    }
}
