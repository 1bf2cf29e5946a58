//! Instants as Postgres stores them: microseconds, without a zone. Nothing here reads a clock.

use uuid::Uuid;

/// Microseconds from the UNIX epoch to Postgres's, 2000-01-01 UTC.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Microseconds since the UNIX epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// Parses RFC 3339, truncating to the microsecond as Postgres stores it.
    pub fn parse(text: &str) -> Option<Self> {
        parse_utc(text.as_bytes()).or_else(|| {
            let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
            i64::try_from(nanos.div_euclid(1000)).ok().map(Self)
        })
    }

    /// The time in a version 7 UUID, in whole milliseconds.
    pub fn of_uuid_v7(id: &Uuid) -> Option<Self> {
        if id.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        let seconds = i64::try_from(seconds).ok()?;
        seconds
            .checked_mul(1_000_000)?
            .checked_add(i64::from(nanos / 1000))
            .map(Self)
    }

    /// The value in binary COPY: microseconds since 2000-01-01 UTC.
    pub const fn to_postgres(self) -> i64 {
        self.0 - POSTGRES_EPOCH_US
    }

    /// Reads the value of binary COPY.
    pub const fn from_postgres(us: i64) -> Self {
        Self(us.saturating_add(POSTGRES_EPOCH_US))
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

/// Parses the usual form, `2026-05-24T10:00:00Z` with at most nine digits after the seconds, from
/// 1970 to 9998. All other texts are left to the general parser.
fn parse_utc(text: &[u8]) -> Option<Micros> {
    let (clock, rest) = text.split_first_chunk::<19>()?;
    let separators = [clock[4], clock[7], clock[10], clock[13], clock[16]];
    if separators != *b"--T::" {
        return None;
    }
    let two = |at: usize| Some(digit(clock[at])? * 10 + digit(clock[at + 1])?);
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        1..=12 => 31,
        _ => return None,
    };
    let is_usual = (1970..9999).contains(&year)
        && (1..=days).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_usual {
        return None;
    }
    let mut micros = 0;
    match rest {
        [b'Z'] => {}
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            for (place, &byte) in digits.iter().enumerate() {
                let digit = digit(byte)?;
                if place < 6 {
                    micros = micros * 10 + digit;
                }
            }
            for _ in digits.len()..6 {
                micros *= 10;
            }
        }
        _ => return None,
    }
    // Years begin in March here, so that the leap day is their last day.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days lie between 0000-03-01 and the epoch.
    let days = year * 365 + leap_days + day_of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(Micros(seconds * 1_000_000 + micros))
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn general(text: &str) -> Option<Micros> {
        let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        i64::try_from(nanos.div_euclid(1000)).ok().map(Micros)
    }

    #[test]
    fn the_usual_form_is_read_as_the_general_parser_reads_it_on_every_day() {
        for year in [1969, 1970, 1972, 1999, 2000, 2024, 2026, 2100, 9998, 9999] {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let text = format!("{year}-{month:02}-{day:02}T23:59:59.999999999Z");
                assert_eq!(Micros::parse(&text), general(&text), "{text}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_text_is_read_as_the_general_parser_reads_it(
            (year, month, day) in (0..10_000, 0..14, 0..33),
            (hour, minute, second) in (0..26, 0..62, 0..62),
            fraction in "([.,][0-9]{0,11})?",
            end in "Z|z|[+-]0[0-9]:?[0-9]0|Z\\[UTC\\]|",
            (typo, at) in (proptest::option::weighted(0.2, "[ -~]"), 0..19_usize),
        ) {
            let mut text =
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
            text += &fraction;
            text += &end;
            if let Some(typo) = typo {
                text.replace_range(at..=at, &typo);
            }
            prop_assert_eq!(Micros::parse(&text), general(&text), "{}", text);
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
        assert_eq!(Micros::of_uuid_v7(&Uuid::nil()), None);
    }

    #[test]
    fn text_without_an_offset_is_not_an_instant() {
        for text in [
            "", "2026-05-24", "2026-05-24T10:00:00", "yesterday", "1770000000",
        ] {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }
}
