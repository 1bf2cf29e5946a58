//! Instants in the form that Postgres prints and reads.
//!
//! Invariant: the output is read the same in any session. The input must be printed with time zone
//! UTC and date style ISO; any other text is refused.

use super::calendar::{DAY_US, SECOND_US, civil_of_day, day_of_civil};

/// An instant in a form that Postgres reads the same in any session.
pub(crate) fn timestamp(us: i64) -> String {
    match us {
        i64::MIN => return "-infinity".to_owned(),
        i64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    let (year, month, day) = civil_of_day(us.div_euclid(DAY_US));
    let time_us = us.rem_euclid(DAY_US);
    let (seconds, fraction) = (time_us / SECOND_US, time_us % SECOND_US);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // There is no year 0: 1 BC is the year before 1 AD.
    let (year, era) = if year > 0 {
        (year, "")
    } else {
        (1 - year, " BC")
    };
    let fraction = if fraction == 0 {
        String::new()
    } else {
        format!(".{fraction:06}")
    };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}+00{era}")
}

/// Parses a timestamp that Postgres printed with time zone UTC and date style ISO.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    match text {
        "-infinity" => return Some(i64::MIN),
        "infinity" => return Some(i64::MAX),
        _ => {}
    }
    let (text, is_bc) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, time) = text.strip_suffix("+00")?.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction_us) = match time.split_once('.') {
        Some((time, digits)) if digits.len() <= 6 => {
            (time, format!("{digits:0<6}").parse::<i64>().ok()?)
        }
        Some(_) => return None,
        None => (time, 0),
    };
    let mut time = time.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let year = if is_bc { 1 - year } else { year };
    let seconds = hour * 3600 + minute * 60 + second;
    day_of_civil(year, month, day)
        .checked_mul(DAY_US)?
        .checked_add(seconds * SECOND_US + fraction_us)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use proptest::prelude::*;

    use super::super::bound::{Bound, parse_bound};
    use super::super::range::Range;
    use super::*;

    #[test]
    fn bounds_are_read_as_postgres_writes_them() {
        let day = Range {
            from_us: parse_timestamp("2026-11-22 00:00:00+00").unwrap(),
            to_us: parse_timestamp("2026-11-23 00:00:00+00").unwrap(),
        };
        assert_eq!(
            parse_bound("FOR VALUES FROM ('2026-11-22 00:00:00+00') TO ('2026-11-23 00:00:00+00')"),
            Some(Bound::Range(day))
        );
        assert_eq!(
            parse_bound("FOR VALUES FROM (MINVALUE) TO ('2026-11-22 00:00:00+00')"),
            Some(Bound::Range(Range {
                from_us: i64::MIN,
                to_us: day.from_us
            }))
        );
        assert_eq!(
            parse_bound("FOR VALUES FROM ('-infinity') TO (MAXVALUE)"),
            Some(Bound::Range(Range {
                from_us: i64::MIN,
                to_us: i64::MAX
            }))
        );
        assert_eq!(parse_bound("DEFAULT"), Some(Bound::Default));
        assert_eq!(parse_bound("FOR VALUES IN ('a')"), None);
        assert_eq!(
            parse_bound("FOR VALUES FROM ('22/11/2026 00:00:00 CET') TO (MAXVALUE)"),
            None
        );
    }

    proptest! {
        #[test]
        fn an_instant_reads_back_as_it_is_written(us in -200_000_000_000_000_000_i64..9_000_000_000_000_000_000) {
            prop_assert_eq!(parse_timestamp(&timestamp(us)), Some(us));
        }
    }
}
