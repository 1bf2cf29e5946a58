//! Fields that are not known, and what is kept of them.

mod conflicts;

use serde_json::{Value, json};

use crate::event::format::Format;
use crate::event::table::Table;
use crate::event::testing::{NOW, decode, decode_as};

/// HMAC-SHA256 with the salt "salt" of "user": the contract's vector.
const USER: &str = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";

/// A valid event of each format.
fn example(format: Format) -> (Table, Value) {
    let (demo, other) = (Table::Exposures, Table::Interactions);
    match format {
        Format::Native => (
            demo,
            json!({"occurred_at": NOW, "request_id": "r", "surface": "home", "items": []}),
        ),
        Format::ServiceV1 => (
            demo,
            json!({"schema_version": "v1", "timestamp": NOW, "request_id": "r", "surface": "home"}),
        ),
        Format::EvalV1 => (
            demo,
            json!({"ts": NOW, "request_id": "r", "user_id": "user", "items": [],
                   "context": {"surface": "home"}}),
        ),
        Format::PipelinesV1 => (
            demo,
            json!({"v": 1, "ts": NOW, "surface": "home", "session_id": "s", "item_id": "a"}),
        ),
        Format::OutcomeV1 => (
            other,
            json!({"ts": NOW, "request_id": "r", "event_type": "click", "item_id": "a"}),
        ),
        Format::AssignmentV1 => (
            Table::Assignments,
            json!({"ts": NOW, "request_id": "r", "experiment_id": "x", "variant": "A"}),
        ),
    }
}

fn click() -> Value {
    json!({"occurred_at": NOW, "event_type": "click", "item_id": "a"})
}

/// `event` with the members of `more`; those of objects are put together.
fn with(mut event: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        match (event.get_mut(name), value) {
            (Some(Value::Object(known)), Value::Object(new)) => known.extend(new.clone()),
            _ => event[name] = value.clone(),
        }
    }
    event
}

#[test]
fn a_field_that_is_not_known_is_kept_in_extra_in_every_format_or_refused() {
    let more = json!({"campaign": {"id": 7}, "extra": 1, "schema": null, "x": "y"});
    for format in Format::ALL {
        let (table, event) = example(format);
        let event = with(event, &more).to_string();
        let told = decode_as(table, Some(format), false, &event).unwrap();
        let mut kept = &told.rows[0]["meta"]["extra"];
        if format == Format::PipelinesV1 {
            kept = &kept["lines"][0];
        }
        for (name, value) in more.as_object().unwrap() {
            assert_eq!(&kept[name], value, "{format} {name}");
        }
        // None of them takes the place of what the service says.
        assert_eq!(told.rows[0]["meta"]["schema"], format.as_str());
        let names = ["campaign", "extra", "schema", "x"];
        assert_eq!(
            told.warned(),
            names.map(|name| ("unknown_field", name)),
            "{format}"
        );

        let told = decode_as(table, Some(format), true, &event).unwrap();
        assert_eq!(
            told.rejection(),
            Some(("unknown_field", "campaign")),
            "{format}"
        );
        let (_, plain) = example(format);
        let told = decode_as(table, Some(format), true, &plain.to_string()).unwrap();
        assert_eq!(told.rejection(), None, "{format}");
        assert_eq!(told.warned(), [], "{format}");
    }
}

#[test]
fn warnings_count_events_and_leave_rejected_ones_out() {
    let events = json!([
        with(click(), &json!({"a": 1, "b": 2})),
        with(click(), &json!({"a": 1})),
        with(click(), &json!({"a": 1, "event_type": "stare"})),
    ]);
    let told = decode(Table::Interactions, &events.to_string());
    assert_eq!(told.rejection(), Some(("invalid_value", "event_type")));
    let expected = [("unknown_field", "a", 2), ("unknown_field", "b", 1)];
    let expected = expected.map(|(code, field, count)| (code, field.to_owned(), count));
    assert_eq!(told.warnings, expected);
    let twice = click().to_string().replace('{', r#"{"a":1,"a":2,"#);
    let told = decode(Table::Interactions, &twice);
    assert_eq!(
        told.warned(),
        [("unknown_field", "a"), ("duplicate_field", "a")]
    );
    assert_eq!(told.rows[0]["meta"]["extra"]["a"], 2);
}

/// Only a name that one object has twice is a repetition.
#[test]
fn a_member_of_several_objects_stands_twice_in_none_of_them() {
    let unknown = |names: &[&'static str]| -> Vec<(&'static str, String, usize)> {
        let names = names.iter();
        names
            .map(|name| ("unknown_field", (*name).to_owned(), 1))
            .collect()
    };
    let long = "x".repeat(100);
    for (members, expected) in [
        (
            r#""items":[{"item_id":"a","rank":1,"o":1},{"item_id":"b","rank":2}]"#,
            unknown(&["items.rank", "items.o"]),
        ),
        (
            r#""items":[{"item_id":"a"}],"order":{"id":"o","n":{"m":1},"m":1},"m":1"#,
            unknown(&["m", "order.n", "order.m"]),
        ),
        (
            r#""items":[{"item_id":"a","o":1,"o":2},{"item_id":"b","o":1},{"item_id":"c","o":1,"\u006f":2}]"#,
            [
                unknown(&["items.o"]),
                vec![("duplicate_field", "items.o".to_owned(), 1)],
            ]
            .concat(),
        ),
        (
            r#""items":[{"item_id":"a"}],"order":{"id":"o","m":1,"m":1,"m":1}"#,
            [
                unknown(&["order.m"]),
                vec![("duplicate_field", "order.m".to_owned(), 1)],
            ]
            .concat(),
        ),
        (
            r#""items":[{"item_id":"a"}],"items.o":1,"LONGa":1,"LONGb":1,"LONGc":{"d":[1],"d":[1]}"#,
            [
                unknown(&["items.o"]),
                vec![("unknown_field", long[..64].to_owned(), 1)],
            ]
            .concat(),
        ),
        (
            r#""items":[{"item_id":"a"}],"LONGa":1,"LONGa":1"#,
            vec![
                ("unknown_field", long[..64].to_owned(), 1),
                ("duplicate_field", long[..64].to_owned(), 1),
            ],
        ),
    ] {
        let members = members.replace("LONG", &long);
        let body = format!(r#"{{"event_type":"purchase",{members}}}"#);
        let told = decode(Table::Interactions, &body);
        assert_eq!(told.rejection(), None, "{body}");
        assert_eq!(told.warnings, expected, "{body}");
    }
}

#[test]
fn no_raw_id_is_kept_under_a_name_that_is_not_known() {
    for format in Format::ALL {
        for name in [
            "user_id", "userId", "UserID", "user-id", "USER_ID", "anonymousId", "sessionId",
            "anonymous_id", "session_id", "Session-Id",
        ] {
            for raw in [json!("ada@example.org"), json!({"mail": "ada@example.org"})] {
                let (table, event) = example(format);
                // Fields that the format knows are not meant here.
                if event.get(name).is_some() {
                    continue;
                }
                let event = with(event, &json!({name: raw}));
                let told = decode_as(table, Some(format), false, &event.to_string()).unwrap();
                let rows = json!(told.rows).to_string();
                assert!(!rows.contains("example.org"), "{format} {event}: {rows}");
            }
        }
        for name in ["user_id_hash", "anonymous_id_hash", "session_id_hash"] {
            let (table, event) = example(format);
            let event = with(event, &json!({name: "ada@example.org"}));
            let told = decode_as(table, Some(format), false, &event.to_string()).unwrap();
            assert_eq!(told.rejection(), Some(("invalid_value", name)), "{format}");
        }
    }
}

/// A thousand fields for one thing end at the second; members of one item are summed up.
#[test]
fn many_fields_are_told_in_few_words() {
    let ids: Vec<_> = (0..1000).map(|n| format!("\"user_id\":\"{n}\"")).collect();
    let (table, event) = example(Format::ServiceV1);
    let body = event
        .to_string()
        .replace('{', &format!("{{{},", ids.join(",")));
    let told = decode_as(table, Some(Format::ServiceV1), false, &body).unwrap();
    assert_eq!(told.rejection(), Some(("duplicate_field", "user_id")));
    let members: Vec<_> = (0..40_000).map(|n| format!("\"x{n}\":0")).collect();
    let body = format!(
        r#"{{"event_type":"view","items":[{{"item_id":"a","position":1,{}}}]}}"#,
        members.join(",")
    );
    let told = decode(Table::Interactions, &body);
    assert_eq!(told.rejection(), None);
    assert_eq!(told.warnings.len(), 21);
    assert_eq!(told.warnings[20], ("unknown_field", String::new(), 39_980));
}

#[test]
fn a_clients_meta_cannot_say_what_the_service_says() {
    let event = with(
        click(),
        &json!({"anonymous_id": "anon", "user_id": "user", "request_id": "r", "meta": {
            "anonymous_id": "user", "anonymous_id_hash": USER, "request_id": "z", "schema": "mine",
            "subject_kind": "robot", "skew_ms": 1, "extra": 2, "own": 3
        }}),
    );
    let told = decode(Table::Interactions, &event.to_string());
    let meta = &told.rows[0]["meta"];
    assert_eq!(meta["own"], 3);
    assert_eq!(meta["request_id"], "r");
    for name in ["schema", "subject_kind", "skew_ms"] {
        assert_eq!(meta[name], Value::Null, "{name}");
    }
    let hash = meta["anonymous_id_hash"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
    let moved = &meta["extra"]["meta"];
    assert_eq!(moved["request_id"], "z");
    assert_eq!(moved["extra"], 2);
    assert_eq!(moved["anonymous_id_hash"], USER);
    assert_ne!(USER, hash);
    assert_eq!(told.warnings.len(), 7);
    assert!(
        told.warnings
            .iter()
            .all(|(code, _, _)| *code == "moved_field")
    );
}
