//! Where lines go, and what they get.

use serde_json::{Value, json};

use super::*;

const TIME: &str = "2026-05-24T10:00:00.123Z";

fn completed(line: &str) -> Option<Value> {
    let head = head_of(b"first");
    let time: jiff::Timestamp = TIME.parse().unwrap();
    let place = Place {
        head: &head,
        offset: 7,
        time_us: time.as_microsecond(),
    };
    let look = Look::at(line.as_bytes());
    let whole = look.completed(line.as_bytes(), &place)?;
    let text = String::from_utf8(whole).unwrap();
    Some(serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap())
}

#[test]
fn a_line_goes_where_the_service_takes_its_format() {
    for (line, endpoint, is_list) in [
        (
            r#"{"event_type":"click","item_id":"a"}"#,
            Endpoint::Interactions,
            false,
        ),
        (
            r#"{"event_type":"click","item_id":"a","ts":"x","request_id":"r"}"#,
            Endpoint::Interactions,
            false,
        ),
        (
            r#"{"request_id":"r","surface":"home","items":[]}"#,
            Endpoint::Exposures,
            false,
        ),
        (
            r#"{"schema_version":"v1","timestamp":"x","request_id":"r"}"#,
            Endpoint::Exposures,
            false,
        ),
        (
            r#"{"ts":"x","request_id":"r","user_id":"u","items":[]}"#,
            Endpoint::Exposures,
            false,
        ),
        (
            r#"{"v":1,"ts":"x","tenant":"t","session_id":"s","item_id":"a"}"#,
            Endpoint::Exposures,
            true,
        ),
        (
            r#"{"experiment_id":"e","variant":"a","request_id":"r","user_id":"u","ts":"x"}"#,
            Endpoint::Assignments,
            false,
        ),
        ("[1]", Endpoint::Exposures, false),
        ("no json", Endpoint::Exposures, false),
    ] {
        let look = Look::at(line.as_bytes());
        assert_eq!(
            (look.endpoint, look.list.is_some()),
            (endpoint, is_list),
            "{line}"
        );
    }
}

#[test]
fn a_native_event_gets_what_names_it_and_others_nothing() {
    let v7 = "0190163d-8694-739b-aea5-966c26f8ad91";
    for (line, has) in [
        (r#"{}"#.to_owned(), ["made", "made"]),
        (
            r#" { "event_type" : "click" }"#.to_owned(),
            ["made", "made"],
        ),
        (
            "\u{feff}{\"event_type\":\"click\"}".to_owned(),
            ["made", "made"],
        ),
        (
            r#"{"event_type":"click","event_id":null}"#.to_owned(),
            ["made", "made"],
        ),
        (
            r#"{"event_id":"  ","a":1,"occurred_at":null}"#.to_owned(),
            ["made", "made"],
        ),
        (
            r#"{"occurred_at":null,"event_id":"x"}"#.to_owned(),
            ["x", "made"],
        ),
        (r#"{"event_id":"x","items":[]}"#.to_owned(), ["x", "made"]),
        (
            r#"{"occurred_at":"2026-01-01T00:00:00Z"}"#.to_owned(),
            ["made", "2026-01-01T00:00:00Z"],
        ),
    ] {
        let whole = completed(&line).unwrap_or_else(|| panic!("{line} stays"));
        let id = whole["event_id"].as_str().unwrap();
        assert!(
            has[0] == id || has[0] == "made" && id.parse::<Uuid>().is_ok(),
            "{whole}"
        );
        let at = whole["occurred_at"].as_str().unwrap();
        assert_eq!(at, if has[1] == "made" { TIME } else { has[1] }, "{whole}");
    }
    // The time of the id, whatever else there is.
    let whole = completed(&format!(r#"{{"event_id":"{v7}"}}"#)).unwrap();
    assert_eq!(
        whole,
        json!({"event_id": v7, "occurred_at": "2024-06-14T10:14:09.3Z"})
    );
    let assignment = r#"{"experiment_id":"e","variant":"a","request_id":"r""#;
    for (more, ts) in [
        ("}", TIME),
        (r#","ts":null}"#, TIME),
        (r#","ts":" ","occurred_at":"y"}"#, TIME),
        (
            r#","event_id":"0190163d-8694-739b-aea5-966c26f8ad91"}"#,
            "2024-06-14T10:14:09.3Z",
        ),
    ] {
        let line = format!("{assignment}{more}");
        let whole = completed(&line).unwrap_or_else(|| panic!("{line} stays"));
        assert_eq!(whole["ts"], ts, "{line}");
        assert_eq!(whole.get("event_id").is_some(), line.contains("event_id"));
    }
    for line in [
        format!("{assignment},\"ts\":\"x\"}}"),
        r#"{"event_id":"x","occurred_at":"y"}"#.to_owned(),
        r#"{"event_type":"click","ts":"x"}"#.to_owned(),
        r#"{"ts":"x","items":[]}"#.to_owned(),
        r#"{"schema_version":"v1","timestamp":"x"}"#.to_owned(),
        r#"{"v":1,"ts":"x","item_id":"a"}"#.to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
    ] {
        assert_eq!(completed(&line), None, "{line}");
    }
}

#[test]
fn an_id_is_that_of_a_line_at_its_place() {
    let id = |first: &[u8], offset, line: &[u8]| {
        let head = head_of(first);
        Place {
            head: &head,
            offset,
            time_us: 0,
        }
        .id(line)
    };
    let one = id(b"a", 1, b"x");
    assert_eq!(one, id(b"a", 1, b"x"));
    for other in [id(b"b", 1, b"x"), id(b"a", 2, b"x"), id(b"a", 1, b"y")] {
        assert_ne!(one, other);
    }
    // Stored rows hang on it.
    assert_eq!(one.get_version_num(), 5);
    assert_eq!(json!(id(b"a", 1, b"x").to_string()), json!(one.to_string()));
}
