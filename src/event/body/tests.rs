//! Bodies split into events, in every framing.

use super::*;

const LIMITS: Limits = Limits {
    events_max: 4,
    event_bytes_max: 64,
};

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
            Err(rejection) => format!("!{}", rejection.code.as_str()),
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
    let codes: Vec<_> = body.events().map(|e| e.err().map(|r| r.code)).collect();
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
    let codes: Vec<_> = body.events().map(|e| e.err().map(|r| r.code)).collect();
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
