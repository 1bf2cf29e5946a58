//! What is a time, which one it is, and what is wrong with what is none.

use proptest::prelude::*;

use super::*;

/// What a general parser reads, which takes much that RFC 3339 does not have.
fn general(text: &str) -> Option<Micros> {
    let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    i64::try_from(nanos.div_euclid(1000)).ok().map(Micros)
}

#[test]
fn every_day_is_counted_as_the_general_parser_counts_it() {
    for year in [
        0, 1, 4, 100, 400, 1582, 1969, 1970, 1972, 1999, 2000, 2024, 2026, 2100, 9998,
    ] {
        for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
            let text = format!("{year:04}-{month:02}-{day:02}T23:59:59.999999999Z");
            assert_eq!(Micros::parse(&text), general(&text), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_read_is_what_the_general_parser_reads(
        (year, month, day) in (0..9999, 0..14, 0..33),
        (hour, minute, second) in (0..26, 0..62, 0..60),
        fraction in "([.,][0-9]{0,9})?",
        end in "Z|z|[+-]([01][0-9]|2[0-3]):[0-5]0|[+-]0[0-9][0-9]0|Z\\[UTC\\]|",
        (typo, at) in (proptest::option::weighted(0.2, "[ -~]"), 0..19_usize),
    ) {
        let mut text =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        text += &fraction;
        text += &end;
        if let Some(typo) = typo {
            text.replace_range(at..=at, &typo);
        }
        // A typo may make a leap second, which the general parser takes anywhere, or the last
        // year, which it does not take whole.
        prop_assume!(&text.as_bytes()[17..19] != b"60" && !text.starts_with("9999"));
        let is_rfc3339 = !text.contains([',', '[', ' '])
            && (text.ends_with(['Z', 'z']) || text.as_bytes()[text.len() - 3] == b':');
        let general = general(&text).filter(|_| is_rfc3339);
        match Micros::parse(&text) {
            Some(at) => prop_assert_eq!(Some(at), general, "{}", text),
            // The other way round the general parser takes more.
            None => prop_assert!(general.is_none() || !is_plain(&text), "{}", text),
        }
    }
}

/// Whether a text has digits, and separators, exactly where RFC 3339 has them.
fn is_plain(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                '0'
            } else {
                c.to_ascii_uppercase()
            }
        })
        .collect();
    let tail = shape.strip_prefix("0000-00-00T00:00:00").map(|tail| {
        tail.strip_prefix('.')
            .map_or(tail, |rest| rest.trim_start_matches('0'))
    });
    matches!(tail, Some("Z" | "+00:00" | "-00:00"))
}

/// What is RFC 3339, with the same instant in another spelling, and what is not.
#[test]
fn times_are_rfc_3339_and_nothing_looser() {
    for (text, same) in [
        ("2026-05-24T10:00:00Z", "2026-05-24T10:00:00Z"),
        ("2026-05-24t10:00:00z", "2026-05-24T10:00:00Z"),
        ("2026-05-24T10:00:00-00:00", "2026-05-24T10:00:00Z"),
        ("2026-05-24T10:00:00+00:00", "2026-05-24T10:00:00Z"),
        ("2026-05-24T12:30:00.5+02:30", "2026-05-24T10:00:00.500Z"),
        ("2026-05-24T10:00:00+23:59", "2026-05-23T10:01:00Z"),
        ("2026-05-24T10:00:00-23:59", "2026-05-25T09:59:00Z"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
        (
            "2026-05-24T10:00:00.1234567890123456789Z",
            "2026-05-24T10:00:00.123456Z",
        ),
        // The examples of RFC 3339, 5.8: one leap second, in two zones.
        ("1990-12-31T23:59:60Z", "1991-01-01T00:00:00Z"),
        ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00Z"),
        ("1991-01-01T00:59:60.25+01:00", "1991-01-01T00:00:00.25Z"),
        ("2015-06-30T23:59:60Z", "2015-07-01T00:00:00Z"),
        ("2015-07-01T08:59:60+09:00", "2015-07-01T00:00:00Z"),
        ("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.87Z"),
    ] {
        assert_eq!(Micros::parse(text), general(same), "{text}");
    }
    for text in [
        "",
        "Z",
        "yesterday",
        "1770000000",
        "2026-05-24",
        "10:00:00Z",
        // No offset, or no whole one.
        "2026-05-24T10:00:00",
        "2026-05-24T10:00:00.5",
        "2026-05-24T10:00:00+02",
        "2026-05-24T10:00:00+0200",
        "2026-05-24T10:00:00+2:00",
        "2026-05-24T10:00:00+02:0",
        "2026-05-24T10:00:00+02:00:00",
        "2026-05-24T10:00:00 Z",
        "2026-05-24T10:00:00UTC",
        "2026-05-24T10:00:00ZZ",
        "2026-05-24T10:00:00\u{2212}02:00",
        // Offsets that are none.
        "2026-05-24T10:00:00+25:59",
        "2026-05-24T10:00:00+24:00",
        "2026-05-24T10:00:00-99:00",
        "2026-05-24T10:00:00+00:60",
        "2026-05-24T10:00:00+02:99",
        // Zones of RFC 9557, contradicting or not.
        "2026-05-24T10:00:00+02:00[America/New_York]",
        "2026-05-24T10:00:00Z[UTC]",
        "2026-05-24T10:00:00+02:00[Europe/Paris]",
        "2026-05-24T10:00:00Z[u-ca=gregory]",
        "2026-05-24T10:00:00[UTC]",
        // Other separators, and other forms of ISO 8601.
        "2026-05-24 10:00:00Z",
        "2026-05-24_10:00:00Z",
        "20260524T100000Z",
        "2026-05-24T100000Z",
        "20260524T10:00:00Z",
        "2026-W21-7T10:00:00Z",
        "2026-144T10:00:00Z",
        "2026-05T10:00:00Z",
        "2026-05-24T10:00Z",
        "2026-05-24T10Z",
        "2026-05-24T10:00:00,5Z",
        "2026-05-24T10:00:00.Z",
        "2026-05-24T10:00:00.+02:00",
        "2026-5-24T10:00:00Z",
        "2026-05-24T9:00:00Z",
        " 2026-05-24T10:00:00Z",
        "2026-05-24T10:00:00Z\n",
        "+2026-05-24T10:00:00Z",
        "\u{0662}026-05-24T10:00:00Z",
        // Years that are not four digits.
        "12026-05-24T10:00:00Z",
        "+012026-05-24T10:00:00Z",
        "-2026-05-24T10:00:00Z",
        "-000001-05-24T10:00:00Z",
        "26-05-24T10:00:00Z",
        "-026-05-24T10:00:00Z",
        // Days and times that there are not.
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-00-10T00:00:00Z",
        "2026-13-10T00:00:00Z",
        "2026-05-00T00:00:00Z",
        "2026-05-24T24:00:00Z",
        "2026-05-24T24:00:01Z",
        "2026-05-24T23:60:00Z",
        // Leap seconds where there can be none.
        "2026-05-24T10:30:60Z",
        "2026-05-24T23:59:60Z",
        "2026-06-29T23:59:60Z",
        "2026-03-31T23:59:60Z",
        "2026-06-30T23:58:60Z",
        "2026-06-30T23:59:60+01:00",
        "2026-06-30T23:59:60-00:01",
        "2026-06-30T23:59:61Z",
    ] {
        assert_eq!(Micros::parse(text), None, "{text}");
    }
}

/// What is written as RFC 3339 has it, and is no time for another reason.
#[test]
fn a_day_or_a_second_that_there_is_not_is_no_fault_of_the_form() {
    use NotATime::{Form, NoLeapSecond, NoSuchDay};
    for (text, why) in [
        ("2026-02-29T00:00:00Z", NoSuchDay),
        ("2100-02-29T10:00:00.5+02:00", NoSuchDay),
        ("2026-04-31T00:00:00Z", NoSuchDay),
        ("2026-02-31T23:59:60Z", NoSuchDay),
        ("2026-11-26T23:59:60Z", NoLeapSecond),
        ("2026-05-24T10:30:60.25-08:00", NoLeapSecond),
        ("2026-06-30T23:59:60+01:00", NoLeapSecond),
        // Not of the form: RFC 3339 has no such digits there.
        ("2026-02-29T00:00:00", Form),
        ("2026-02-32T00:00:00Z", Form),
        ("2026-13-10T00:00:00Z", Form),
        ("2026-05-24T24:00:00Z", Form),
        ("2026-05-24T10:00:61Z", Form),
        ("2026-11-26T23:59:60", Form),
        ("2026-11-26T23:59:60+24:00", Form),
    ] {
        assert_eq!(Micros::parse_telling(text), Err(why), "{text}");
    }
}

#[test]
fn digits_that_are_cut_off_are_told() {
    for (text, is_cut) in [
        ("2026-05-24T10:00:00Z", false),
        ("2026-05-24T10:00:00.123456Z", false),
        ("2026-05-24T10:00:00.123456000000Z", false),
        ("2026-05-24T10:00:00.123456001Z", true),
        ("2026-05-24T10:00:00.0000001+02:00", true),
    ] {
        let told = Micros::parse_telling(text).map(|(_, is_cut)| is_cut);
        assert_eq!(told, Ok(is_cut), "{text}");
    }
}

#[test]
fn nanoseconds_are_truncated_downwards_on_both_sides_of_the_epoch() {
    let us = |text| Micros::parse(text).unwrap().0;
    assert_eq!(us("1970-01-01T00:00:00.000001999Z"), 1);
    assert_eq!(us("1969-12-31T23:59:59.999999999Z"), -1);
    assert_eq!(
        us("2026-05-24T12:00:00.123456789+02:00"),
        us("2026-05-24T10:00:00.123456Z")
    );
}

#[test]
fn a_version_7_uuid_tells_its_millisecond() {
    let at = uuid::Timestamp::from_unix(uuid::NoContext, 1_770_000_000, 123_456_789);
    let id = Uuid::new_v7(at);
    assert_eq!(Micros::of_uuid_v7(&id), Some(Micros(1_770_000_000_123_000)));
    // Other versions, and other variants with the version's bits.
    let bytes = *id.as_bytes();
    for (at, byte) in [
        (6, 0x40),
        (6, 0x10),
        (6, 0x80),
        (8, 0x00),
        (8, 0x7f),
        (8, 0xc0),
        (8, 0xff),
    ] {
        let mut other = bytes;
        other[at] = byte;
        assert_eq!(
            Micros::of_uuid_v7(&Uuid::from_bytes(other)),
            None,
            "{other:x?}"
        );
    }
    assert_eq!(Micros::of_uuid_v7(&Uuid::nil()), None);
    assert_eq!(Micros::of_uuid_v7(&Uuid::max()), None);
}
