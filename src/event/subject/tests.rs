//! Raw ids are hashed wherever and however they are named, and nothing else is touched.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::table::Table;
use crate::event::testing::{NOW, decode};

/// Names of raw ids, in spellings of clients.
const IDS: [&str; 10] = [
    "user_id", "session_id", "anonymous_id", "userId", "UserID", "USER-ID", "Session-Id",
    "anonymous id", "_sessionid", "uséer.id",
];

/// Names that are none.
const OTHERS: [&str; 13] = [
    "item_id", "id", "_id", "", "a", "user", "user_ids", "user_id2", "xuser_id", "user_id_hash",
    "userId_hash", "a\"user_id", "a\"\n\u{8}",
];

fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select([&IDS[..], &OTHERS].concat())
}

/// The expected result of scrubbing, value by value; `None` where a raw id contradicts its hash.
fn scrubbed(value: &Value, pseudonymizer: &Pseudonymizer) -> Option<Value> {
    let members = match value {
        Value::Object(members) => members,
        Value::Array(elements) => {
            let elements = elements.iter().map(|value| scrubbed(value, pseudonymizer));
            return elements.collect::<Option<Vec<_>>>().map(Value::Array);
        }
        other => return Some(other.clone()),
    };
    let is_id = |name: &str| IDS.contains(&name);
    let mut out = serde_json::Map::new();
    for (name, value) in members.iter().filter(|(name, _)| !is_id(name)) {
        out.insert(name.clone(), scrubbed(value, pseudonymizer)?);
    }
    for (name, value) in members.iter().filter(|(name, _)| is_id(name)) {
        let id = match value {
            Value::Null => continue,
            Value::String(id) => id.clone(),
            other => other.to_string(),
        };
        let Some(hash) = pseudonymizer.hash(&id) else {
            continue;
        };
        let mut hash = hex::encode(hash);
        let hash_name = format!("{name}_hash");
        let sent = members.get(&hash_name).filter(|sent| {
            let is_blank = |text: &str| text.trim().is_empty();
            !sent.is_null() && !sent.as_str().is_some_and(is_blank)
        });
        if let Some(sent) = sent.filter(|sent| sent.as_str() != Some(hash.as_str())) {
            // A hash may stand under the name of the raw id.
            let is_hash = identity::parse_pseudonym(&id).is_some();
            if !is_hash || sent.as_str() != Some(id.as_str()) {
                return None;
            }
            hash = id;
        }
        out.insert(hash_name, hash.into());
    }
    Some(Value::Object(out))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = proptest::sample::select(vec![
        json!("ada"),
        json!(Pseudonymizer::new(b"salt").hash("ada").map(hex::encode)),
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
                Value::Object(members.collect())
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

/// HMAC-SHA256 with the salt "salt" of "user": the contract's vector.
const USER: &str = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";

/// Events with these members in each place that keeps what it does not know, and the path of the place.
fn everywhere(members: &str) -> Vec<(Table, String, &'static str)> {
    use Table::{Assignments, Exposures, Interactions};
    const SHOWN: &str = r#""occurred_at":"NOW","request_id":"r","surface":"s""#;
    const LOGGED: &str =
        r#""schema_version":"v1","timestamp":"NOW","request_id":"r","surface":"s""#;
    const EVALUATED: &str = r#""ts":"NOW","request_id":"r""#;
    let events = [
        (Exposures, SHOWN, r#""items":[],"meta":{@}"#, "meta."),
        (
            Exposures,
            SHOWN,
            r#""items":[],"meta":{"extra":{@}}"#,
            "meta.extra.",
        ),
        (Exposures, SHOWN, r#""items":[],"foo":{@}"#, "foo."),
        (
            Exposures,
            SHOWN,
            r#""items":[],"foo":{"l":[7,[{@}]]}"#,
            "foo.l[1][0].",
        ),
        (Exposures, SHOWN, r#""items":[],"context":{@}"#, "context."),
        (
            Exposures,
            SHOWN,
            r#""items":[],"experiment":{@}"#,
            "experiment.",
        ),
        (Exposures, SHOWN, r#""items":[],"request":{@}"#, "request."),
        (
            Exposures,
            SHOWN,
            r#""items":[],"request":{"context":1},"context":{@}"#,
            "context.",
        ),
        (
            Exposures,
            SHOWN,
            r#""items":[{"item_id":"a"},{"item_id":"b",@}]"#,
            "items[1].",
        ),
        (Exposures, LOGGED, r#""context":{"x":{@}}"#, "context.x."),
        (
            Exposures,
            EVALUATED,
            r#""items":[],"context":{"surface":"s","x":{@}}"#,
            "context.x.",
        ),
        (
            Exposures,
            EVALUATED,
            r#""items":[],"context":{"surface":"s"},"error":[{@}]"#,
            "error[0].",
        ),
        (
            Exposures,
            r#""ts":"NOW","v":1,"surface":"s""#,
            r#""session_id":"s","item_id":"a","foo":{@}"#,
            "foo.",
        ),
        (
            Interactions,
            r#""event_type":"click","item_id":"a""#,
            r#""meta":{@}"#,
            "meta.",
        ),
        (
            Interactions,
            r#""event_type":"click","item_id":"a""#,
            r#""order":{"id":"o",@}"#,
            "order.",
        ),
        (
            Interactions,
            r#""event_type":"purchase""#,
            r#""items":[{"item_id":"a"},{"item_id":"b","for":{@}}]"#,
            "items[1].for.",
        ),
        (
            Interactions,
            r#""event_type":"purchase""#,
            r#""items":[{"item_id":"a"},{"item_id":"b",@}]"#,
            "items[1].",
        ),
        (
            Interactions,
            r#""ts":"NOW","event_type":"click","item_id":"a""#,
            r#""foo":{@}"#,
            "foo.",
        ),
        (
            Assignments,
            r#""ts":"NOW","request_id":"r","experiment_id":"x""#,
            r#""variant":"A","context":{@}"#,
            "context.",
        ),
    ];
    let text = |(table, event, more, path): (Table, &str, &str, &'static str)| {
        let text = format!("{{{event},{more}}}").replace("NOW", NOW);
        (table, text.replace('@', members), path)
    };
    events.map(text).into()
}

#[test]
fn a_raw_id_and_its_hash_agree_in_every_object_or_the_event_is_rejected() {
    let anyone = "0".repeat(64);
    for (id, hash) in [
        (r#""user""#.to_owned(), r#""zz""#.to_owned()),
        (r#""user""#.to_owned(), format!("\"{anyone}\"")),
        ("7".to_owned(), format!("\"{USER}\"")),
        (format!("\"{USER}\""), format!("\"{anyone}\"")),
        (r#""user""#.to_owned(), r#"{"a":1}"#.to_owned()),
    ] {
        for name in ["user_id", "userId", "Session-ID"] {
            for members in [
                format!(r#""{name}":{id},"{name}_hash":{hash}"#),
                format!(r#""{name}_hash" : {hash} ,"a":1,"{name}" : {id}"#),
            ] {
                for (table, text, path) in everywhere(&members) {
                    let told = decode(table, &text);
                    let field = format!("{path}{name}");
                    assert_eq!(
                        told.rejection(),
                        Some(("conflicting_fields", &*field)),
                        "{text}"
                    );
                    assert!(told.rows.is_empty(), "{text}");
                }
            }
        }
    }
    // At the top of an event other spellings are fields of their own.
    let event = r#"{"event_type":"click","item_id":"a","userId":"user","userId_hash":"x"}"#;
    let told = decode(Table::Interactions, event);
    assert_eq!(told.rejection(), Some(("conflicting_fields", "userId")));
}

/// The hash of the raw id is kept, whichever of the two members comes first.
#[test]
fn a_hash_that_agrees_or_says_nothing_takes_no_place() {
    for (id, hash) in [
        ("\"user\"", USER.to_owned()),
        ("\" user \"", USER.to_uppercase()),
        ("\"user\"", " ".to_owned()),
        ("null", USER.to_owned()),
        ("\" \"", USER.to_owned()),
        (&*format!("\"{USER}\""), USER.to_owned()),
    ] {
        for members in [
            format!(r#""userId":{id},"userId_hash":"{hash}""#),
            format!(r#""userId_hash":"{hash}","userId":{id}"#),
            format!(r#""userId_hash":null,"userId":{id},"userId_hash":"{hash}""#),
        ] {
            for (table, text, _) in everywhere(&members) {
                let told = decode(table, &text);
                assert_eq!(told.rejection(), None, "{text}");
                let rows = json!(told.rows).to_string().to_lowercase();
                let kept = format!(r#""userid_hash":"{USER}""#);
                assert_eq!(rows.matches("userid_hash").count(), 1, "{rows}");
                assert!(rows.contains(&kept), "{rows}");
            }
        }
    }
}

proptest! {
    #[test]
    fn every_raw_id_is_hashed_and_all_else_is_kept(value in value()) {
        let pseudonymizer = Pseudonymizer::new(b"salt");
        let mut out = String::new();
        let done = push_scrubbed(&mut out, &value.to_string(), &pseudonymizer);
        match (scrubbed(&value, &pseudonymizer), done) {
            (Some(expected), Ok(())) => {
                let found: Value = serde_json::from_str(&out).unwrap();
                prop_assert_eq!(found, expected);
            }
            (None, Err(rejection)) => prop_assert_eq!(rejection.code, Code::ConflictingFields),
            (expected, done) => prop_assert!(false, "{:?} and {:?}", expected, done),
        }
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
