//! JSON, numbers, times and ids.

use serde::de::IgnoredAny;
use uuid::Uuid;

use super::input::text;
use crate::event::identity::{Pseudonymizer, RequestId, event_id, parse_pseudonym};
use crate::event::json::DEPTH_MAX;
use crate::event::json::scan::Scanner;
use crate::event::json::string::{as_str, push_string};
use crate::event::json::walk::members;
use crate::event::numeric::Decimal;
use crate::event::time::Micros;

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    let deep = "[".repeat(DEPTH_MAX + 2) + &"]".repeat(DEPTH_MAX + 2);
    [
        r#"{"a":[1,-2.5e+3,true,false,null],"b":{"c":"\u00e9\ud83d\ude00\n\"\\\/"},"":0}"#,
        "[[],{},\"\u{7f}é\u{1f600}\",0.0,-0,1E400,1e-7] ",
        r#"{"event_id":"e","items":[{"item_id":"a","rank":1},{"item_id":"b"}]}"#,
        r#""\u0000""#,
        r#"{"\ud800":"\udc00"}"#,
        &deep[..],
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The scanner agrees with another parser about what JSON is, and what it passes can be read again.
pub(super) fn json(data: &[u8]) {
    let text = text(data);
    let mut scanner = Scanner::new(text);
    let scanned = scanner.value(0);
    let whole = scanned.as_ref().is_ok_and(|_| scanner.peek().is_none());
    let deepest = text
        .bytes()
        .filter(|byte| matches!(byte, b'[' | b'{'))
        .count();
    // The other parser stops at 128 levels.
    if deepest < 120 {
        let theirs = serde_json::from_str::<IgnoredAny>(text);
        assert_eq!(whole, theirs.is_ok(), "{scanned:?} and {theirs:?}");
    }
    let Ok(scanned) = scanned else { return };
    assert!(text.contains(scanned.raw));
    if scanned.flaw.is_some() {
        return;
    }
    if let Some(string) = as_str(scanned.raw) {
        let theirs: String = serde_json::from_str(scanned.raw).expect("a string without a flaw");
        assert_eq!(string, theirs);
        let mut again = String::new();
        push_string(&mut again, &string);
        assert_eq!(as_str(&again).as_deref(), Some(&*string));
    }
    for field in members(scanned.raw).unwrap_or_default() {
        let again = Scanner::new(field.raw)
            .value(0)
            .expect("a member's value is a value");
        assert_eq!((again.raw, again.flaw), (field.raw, None));
        assert_eq!(again.escaped, field.escaped);
    }
}

pub(super) fn number_seeds() -> Vec<Vec<u8>> {
    [
        "0 -0",
        "1 1",
        "12.5 0.4",
        "-3.000001 7",
        "999999999999.999999 1",
        "0.0000005 2",
        "1e12 1e-12",
        "123456789012345678901234567890 0.00000000000000000001",
        "4.9E-324 1E+308",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A decimal comes back from Postgres's form as it was, and a product with 1 is the number.
pub(super) fn numbers(data: &[u8]) {
    let text = text(data);
    let numbers: Vec<_> = text
        .split(' ')
        .filter(|number| {
            let mut scanner = Scanner::new(number);
            let is_number = number.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            let sound = scanner
                .value(0)
                .is_ok_and(|value| value.raw == *number && value.flaw.is_none());
            is_number && sound
        })
        .take(2)
        .collect();
    for number in &numbers {
        let Some((value, is_rounded)) = Decimal::parse_telling(number) else {
            continue;
        };
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        let again = Decimal::decode_to_text(&bytes).expect("what was encoded decodes");
        assert_eq!(
            Decimal::parse_telling(&again),
            Some((value, false)),
            "{number} as {again}"
        );
        let product = Decimal::product(number, "1");
        assert_eq!(product, Some((value, is_rounded)), "{number} × 1");
    }
    if let [one, other] = numbers[..] {
        assert_eq!(Decimal::product(one, other), Decimal::product(other, one));
    }
    // Bytes of a row on a broken disk.
    drop(Decimal::decode_to_text(data));
}

pub(super) fn time_seeds() -> Vec<Vec<u8>> {
    [
        "2026-05-24T10:00:00Z",
        "2026-05-24T10:00:00.123456789+02:00",
        "2016-12-31T23:59:60Z",
        "2024-02-29t00:00:00z",
        "0001-01-01T00:00:00-23:59",
        "9999-12-31T23:59:59.999999Z",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Microseconds of the years 0 to 9999 in UTC.
const WRITTEN: std::ops::Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;

/// A time is the same after it was written, and agrees with another parser where that takes it.
pub(super) fn times(data: &[u8]) {
    let text = text(data);
    let Ok((at, is_cut)) = Micros::parse_telling(text) else {
        return;
    };
    assert_eq!(Micros::from_postgres(at.to_postgres()), at);
    // An offset can lead out of the years that RFC 3339 has digits for.
    if WRITTEN.contains(&at.0) {
        assert_eq!(
            Micros::parse_telling(&at.to_string()),
            Ok((at, false)),
            "{text}"
        );
    }
    // The other parser takes nine digits of a second, and has its own way with leap seconds.
    // It ends a day before the year 9999 does.
    let digits = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = digits.bytes().take_while(u8::is_ascii_digit).count();
    let is_theirs = jiff::Timestamp::from_microsecond(at.0).is_ok();
    if digits > 9 || text.contains(":60") || !is_theirs {
        return;
    }
    let theirs: jiff::Timestamp = text.parse().expect("RFC 3339 is a part of what jiff takes");
    let theirs = theirs.as_nanosecond();
    assert_eq!(i128::from(at.0), theirs.div_euclid(1000), "{text}");
    assert_eq!(is_cut, theirs.rem_euclid(1000) != 0, "{text}");
}

pub(super) fn id_seeds() -> Vec<Vec<u8>> {
    [
        "0190163d-8694-739b-aea5-966c26f8ad91",
        "d01a42ab5bfd532aa2bb240ba2e5bc12",
        "req-1",
        "urn:uuid:00000000-0000-7000-8000-000000000000",
        " user ",
        "\u{85}é",
        "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Ids are the same for the same text, and a hash is one in either case of its digits.
pub(super) fn ids(data: &[u8]) {
    let text = text(data);
    let tenant = Uuid::from_u128(1);
    let id = event_id(&tenant, text);
    assert_eq!(event_id(&tenant, &id.to_string()), id);
    if let Some(at) = Micros::of_uuid_v7(&id) {
        assert_eq!(id.get_version_num(), 7);
        assert!(at.0 >= 0 && at.0 % 1000 == 0);
    }
    let request = RequestId::parse(text.into());
    assert_eq!(request.raw().is_none(), Uuid::try_parse(text).is_ok());
    assert_eq!(
        RequestId::parse(request.uuid.to_string().into()).uuid,
        request.uuid
    );
    if let Some(hash) = parse_pseudonym(text) {
        assert_eq!(hex::encode(hash), text.to_ascii_lowercase());
    }
    let hasher = Pseudonymizer::new(b"salt");
    assert_eq!(hasher.hash(text), hasher.hash(text.trim()));
    assert_eq!(hasher.hash(text).is_none(), text.trim().is_empty());
}
