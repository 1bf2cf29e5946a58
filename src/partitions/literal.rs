//! Instants in the form that Postgres reads, for statements that take no parameters.
//!
//! Invariant: the output is read the same in any session.

use super::calendar::{DAY_US, SECOND_US, civil_of_day};

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_instant_outside_the_usual_years_is_written_as_postgres_writes_it() {
        for (us, text) in [
            (0, "1970-01-01 00:00:00+00"),
            (-62_135_596_800_000_001, "0001-12-31 23:59:59.999999+00 BC"),
            (-63_517_824_000_000_000, "0044-03-15 00:00:00+00 BC"),
            (253_402_300_800_000_000, "10000-01-01 00:00:00+00"),
            (i64::MIN, "-infinity"),
            (i64::MAX, "infinity"),
        ] {
            assert_eq!(timestamp(us), text);
        }
    }

    proptest! {
        #[test]
        fn an_instant_reads_back_as_it_is_written(us in -62_135_596_800_000_000_i64..253_402_207_200_000_000) {
            let read: jiff::Timestamp = timestamp(us).parse().unwrap();
            prop_assert_eq!(read.as_microsecond(), us);
        }
    }
}
