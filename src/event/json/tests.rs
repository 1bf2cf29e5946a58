use proptest::prelude::*;

use super::scan::Scanner;
use super::string::{as_str, push_string, unescape};
use super::walk::members;
use super::*;

fn scan(text: &str) -> Result<Option<Flaw>, SyntaxError> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value(0)?;
    match scanner.peek() {
        None => Ok(value.flaw),
        Some(_) => Err(scanner.error("trailing text")),
    }
}

#[test]
fn each_kind_of_flaw_is_named() {
    for (text, flaw) in [
        (r#"{"a":"x\u0000y"}"#, Flaw::Nul),
        (r#"{"a\u0000":1}"#, Flaw::Nul),
        (r#"["\ud800"]"#, Flaw::LoneSurrogate),
        (r#"["\ud800\u0041"]"#, Flaw::LoneSurrogate),
        (r#"["\udc00"]"#, Flaw::LoneSurrogate),
        ("1e401", Flaw::NumberOutOfRange),
        ("[1E-99999999999999999999]", Flaw::NumberOutOfRange),
        (&"9".repeat(401), Flaw::NumberOutOfRange),
    ] {
        assert_eq!(scan(text), Ok(Some(flaw)), "{text}");
    }
}

#[test]
fn depth_is_counted_to_the_limit_and_no_further() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(scan(&nested(DEPTH_MAX)), Ok(None));
    assert_eq!(scan(&nested(DEPTH_MAX + 1)), Ok(Some(Flaw::TooDeep)));
    assert_eq!(scan(&nested(DEPTH_HARD_MAX)), Ok(Some(Flaw::TooDeep)));
    assert!(scan(&nested(DEPTH_HARD_MAX + 1)).is_err());
    assert!(scan(&"[".repeat(5_000_000)).is_err());
    assert!(scan(&"{\"a\":".repeat(1_000_000)).is_err());
}

#[test]
fn text_that_is_not_json_is_refused_with_its_place() {
    for (text, offset) in [
        ("", 0),
        ("{", 1),
        ("[1,]", 3),
        ("{\"a\":1,}", 7),
        ("{\"a\" 1}", 5),
        ("nul", 0),
        ("01", 0),
        ("1.", 0),
        ("-", 0),
        ("\"a\nb\"", 2),
        ("\"\\x\"", 1),
        ("\"abc", 4),
        ("[1}", 2),
    ] {
        assert_eq!(scan(text).unwrap_err().offset, offset, "{text:?}");
    }
}

#[test]
fn members_are_slices_of_the_text() {
    let fields = members(r#" { "a" : [1, 2] , "b\n" : {"c":null} } "#).unwrap();
    let found: Vec<_> = fields.iter().map(|f| (&*f.key, f.raw)).collect();
    assert_eq!(found, [("a", "[1, 2]"), ("b\n", r#"{"c":null}"#)]);
    assert!(members("[]").is_none());
}

fn json() -> impl Strategy<Value = String> {
    // Pieces that are mostly JSON, put together so that they often are not.
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just("\\u00"),
        Just("\\ud83d\\ude00"),
        Just("\\udc00"),
        Just("\\u0000"),
        Just("null"),
        Just("true"),
        Just("1"),
        Just("0"),
        Just("-"),
        Just("."),
        Just("e"),
        Just("E+5"),
        Just(" "),
        Just("\"a\""),
        Just("\"key\":"),
        Just("12.5e3"),
        Just("é"),
        Just("\n"),
        Just("😀"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// `serde_json` decides what JSON is. As a raw value, it accepts lone surrogates as well.
    #[test]
    fn accepts_exactly_what_serde_json_accepts(text in json()) {
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        let ours = scan(&text);
        prop_assert_eq!(ours.is_ok(), theirs, "{:?} {:?}", text, ours);
    }

    #[test]
    fn any_string_survives_escaping_and_unescaping(value in any::<String>()) {
        let mut text = String::new();
        push_string(&mut text, &value);
        prop_assert_eq!(&serde_json::from_str::<String>(&text).unwrap(), &value);
        prop_assert_eq!(as_str(&text).unwrap(), value.as_str());
    }

    #[test]
    fn unescapes_what_serde_json_unescapes(value in any::<String>()) {
        let escaped: String = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        prop_assert_eq!(unescape(&escaped), value);
    }
}
