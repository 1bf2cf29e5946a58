//! Bodies split into events, in every framing.

use super::*;

const LIMITS: Limits = Limits {
    events_max: 4,
    event_bytes_max: 64,
};

/// The code of a bad event.
fn code(event: Result<RawEvent<'_, '_>, &BadEvent<'_>>) -> Option<Code> {
    event.err().map(|bad| bad.rejection.code)
}

/// Each event as its keys, or its rejection's code.
fn split(text: &str, framing: Framing) -> Result<Vec<String>, BodyError> {
    let body = Body::split(text.as_bytes(), framing, &LIMITS)?;
    Ok(body
        .events()
        .map(|event| match event {
            Ok(event) => event
                .fields
                .iter()
                .map(|f| &*f.key)
                .collect::<Vec<_>>()
                .join("+"),
            Err(bad) => format!("!{}", bad.rejection.code.as_str()),
        })
        .collect())
}

#[test]
fn one_object_an_array_and_an_envelope_all_hold_events() {
    let json = |text| split(text, Framing::Json).unwrap();
    assert_eq!(json(r#"{"a":1,"b":2}"#), ["a+b"]);
    assert_eq!(json(r#"[{"a":1},{"b":2}]"#), ["a", "b"]);
    assert_eq!(json(r#"{"x":1,"events":[{"a":1},{}],"y":[1]}"#), ["a", ""]);
    assert_eq!(json(r#"{"events":"an event's own field"}"#), ["events"]);
}

#[test]
fn the_envelopes_sent_at_is_found_on_either_side_of_the_events() {
    for text in [
        r#"{"sent_at":"t","events":[{"a":1}]}"#,
        r#"{"events":[{"a":1}],"sent_at":"t"}"#,
    ] {
        let body = Body::split(text.as_bytes(), Framing::Json, &LIMITS).unwrap();
        assert_eq!(body.sent_at, Some("\"t\""));
    }
    let absent = br#"{"events":[{"a":1}],"sent_at":null}"#;
    let body = Body::split(absent, Framing::Json, &LIMITS).unwrap();
    assert_eq!(body.sent_at, None);
}

#[test]
fn a_member_of_the_envelope_stands_once() {
    for (text, name) in [
        (r#"{"events":[{"a":1}],"events":[]}"#, "events"),
        (r#"{"events":7,"events":[{"a":1}]}"#, "events"),
        (r#"{"sent_at":1,"events":[{"a":1}],"sent_at":2}"#, "sent_at"),
    ] {
        let found = split(text, Framing::Json);
        assert_eq!(found, Err(BodyError::DuplicateMember(name)), "{text}");
    }
    // In an event they are fields like any others.
    let event = split(r#"{"events":7,"events":8}"#, Framing::Json);
    assert_eq!(event.unwrap(), ["events+events"]);
}

#[test]
fn an_event_of_too_many_fields_stays_alone_and_takes_no_more_memory_than_it_may() {
    let fields = |count: usize| vec![r#""":1"#; count].join(",");
    let text = format!(
        "[{{{}}},{{{}}},{{\"a\":1}}]",
        fields(FIELDS_MAX),
        fields(100_000)
    );
    let limits = Limits {
        events_max: 4,
        event_bytes_max: text.len(),
    };
    let body = Body::split(text.as_bytes(), Framing::Json, &limits).unwrap();
    let codes: Vec<_> = body.events().map(code).collect();
    assert_eq!(codes, [None, Some(Code::TooManyFields), None]);
    assert!(body.fields.capacity() < 4 * FIELDS_MAX + text.len() / 16);
}

#[test]
fn memory_is_asked_for_and_its_end_ends_the_splitting() {
    struct Purse(std::cell::Cell<usize>);
    impl Memory for Purse {
        fn take(&self, bytes: usize) -> bool {
            let left = self.0.get().checked_sub(bytes);
            self.0.set(left.unwrap_or(0));
            left.is_some()
        }
    }
    let text = vec!["{\"a\":1}"; 1000].join("\n");
    let limits = Limits {
        events_max: 1000,
        event_bytes_max: 64,
    };
    let split = |purse: &Purse| {
        Body::split_within(text.as_bytes(), Framing::Lines, &limits, purse).map(|_| ())
    };
    let purse = Purse(1_000_000.into());
    assert_eq!(split(&purse), Ok(()));
    let taken = 1_000_000 - purse.0.get();
    assert!(taken > 1000 * size_of::<Field<'_>>(), "{taken}");
    assert_eq!(split(&Purse((taken - 1).into())), Err(BodyError::NoMemory));
}

#[test]
fn a_bad_event_stays_alone() {
    assert_eq!(
        split(r#"[{"a":1},7,{"b":"\u0000"},{"c":1}]"#, Framing::Json).unwrap(),
        ["a", "!not_an_object", "!invalid_unicode", "c"]
    );
    assert_eq!(
        split(
            "{\"a\":1}\r\n{\"b\":\n\n{\"c\":1} x\n{\"d\":1}",
            Framing::Lines
        )
        .unwrap(),
        ["a", "!invalid_json", "!invalid_json", "d"]
    );
    let long = format!("[{{\"a\":\"{}\"}},{{\"b\":1}}]", "x".repeat(64));
    assert_eq!(
        split(&long, Framing::Json).unwrap(),
        ["!event_too_large", "b"]
    );
}

/// Where the id of a bad event was read, it is told; not what may be another event's.
#[test]
fn a_bad_event_keeps_its_id_where_that_can_be_read() {
    let limits = Limits {
        events_max: 4,
        event_bytes_max: 20_000,
    };
    let id = r#""event_id":"e\u0031""#;
    let deep = "[".repeat(100) + &"]".repeat(100);
    let deeper = "[".repeat(2000);
    let fields = vec![r#""":1"#; FIELDS_MAX].join(",");
    let long = "x".repeat(20_000);
    for (line, code, is_told) in [
        (format!(r#"{{{id},"a":"\u0000"}}"#), "invalid_unicode", true),
        (format!(r#"{{"a\ud800":1,{id}}}"#), "invalid_unicode", true),
        (
            format!(r#"{{{id},"a":1e401}}"#),
            "number_out_of_range",
            true,
        ),
        (format!(r#"{{"a":{deep},{id}}}"#), "too_deep", true),
        (format!(r#"{{{id},"a":{deeper}}}"#), "too_deep", true),
        (format!(r#"{{{id},{fields}}}"#), "too_many_fields", true),
        (format!(r#"{{"a":"{long}",{id}}}"#), "event_too_large", true),
        (format!(r#"{{{fields},{id}}}"#), "too_many_fields", false),
        (
            r#"{"event_id":"e\u0000"}"#.to_owned(),
            "invalid_unicode",
            false,
        ),
        (
            r#"{"event_id":"\udc00"}"#.to_owned(),
            "invalid_unicode",
            false,
        ),
        (format!(r#"{{{id},"a":}}"#), "invalid_json", false),
        (format!(r#"{{{id}}} {{"b":1}}"#), "invalid_json", false),
        (format!(r#"[{{{id}}}]"#), "not_an_object", false),
    ] {
        let body = Body::split(line.as_bytes(), Framing::Lines, &limits).unwrap();
        let bad = body.events().next().unwrap().unwrap_err();
        let expected = is_told.then_some(r#""e\u0031""#);
        let line: String = line.chars().take(60).collect();
        assert_eq!(bad.rejection.code.as_str(), code, "{line}");
        assert_eq!(bad.event_id, expected, "{line}");
    }
}

#[test]
fn a_bad_field_is_named_as_it_was_sent() {
    for (event, field) in [
        (r#"{"x\u0000y":1}"#, "x\\u0000y"),
        (r#"{"x":"\u0000"}"#, "x"),
        (r#"{"x\ud800":1}"#, "x\u{FFFD}"),
    ] {
        let body = Body::split(event.as_bytes(), Framing::Json, &LIMITS).unwrap();
        let bad = body.events().next().unwrap().unwrap_err();
        assert_eq!(bad.rejection.field.as_deref(), Some(field), "{event}");
    }
}

#[test]
fn what_nests_too_deep_to_be_read_is_not_called_broken() {
    let deep = "[".repeat(2000);
    let lines = format!("{{\"a\":1}}\n{{\"a\":{deep}\n[");
    assert_eq!(
        split(&lines, Framing::Lines).unwrap(),
        ["a", "!too_deep", "!invalid_json"]
    );
    let whole = split(&deep, Framing::Json);
    assert!(matches!(whole, Err(BodyError::TooDeep(_))), "{whole:?}");
}

#[test]
fn a_line_that_is_not_utf8_costs_no_other_line() {
    let body = Body::split(b"{\"a\":1}\n\xff\n{\"b\":1}", Framing::Lines, &LIMITS).unwrap();
    let codes: Vec<_> = body.events().map(code).collect();
    assert_eq!(codes, [None, Some(Code::InvalidUtf8), None]);
}

#[test]
fn unlabelled_bodies_are_documents_where_they_can_be() {
    let either = |text| split(text, Framing::Either).unwrap();
    assert_eq!(either(r#"{"events":[{"a":1}]}"#), ["a"]);
    assert_eq!(either("{\"a\":1}\n{\"b\":1}\n"), ["a", "b"]);
    assert_eq!(either("{\n\"a\":1,\n\"b\":2}"), ["a+b"]);
    assert_eq!(either("[\n{\"a\":1}\n]"), ["a"]);
}

#[test]
fn bodies_without_events_or_with_too_many_are_refused_whole() {
    assert_eq!(split("", Framing::Json), Err(BodyError::Empty));
    assert_eq!(split("[]", Framing::Json), Err(BodyError::Empty));
    assert_eq!(split(" \n\n", Framing::Lines), Err(BodyError::Empty));
    assert_eq!(
        split("[{},{},{},{},{}]", Framing::Json),
        Err(BodyError::TooManyEvents(4))
    );
    assert_eq!(
        split("{}\n{}\n{}\n{}\n{}", Framing::Lines),
        Err(BodyError::TooManyEvents(4))
    );
    assert_eq!(split("{} {}", Framing::Json), Err(BodyError::Trailing(3)));
    assert!(matches!(
        split("[{}", Framing::Json),
        Err(BodyError::Syntax(_))
    ));
}
