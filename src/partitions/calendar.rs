//! Days and dates in the proleptic Gregorian calendar, as Postgres has it.
//!
//! Invariant: every `i64` of microseconds has a date, so that no sender's clock can crash the
//! service, and the two functions are inverse. Knows no time zone: all days are UTC.

/// Microseconds in a second.
pub(crate) const SECOND_US: i64 = 1_000_000;
/// Microseconds in a day. Like Postgres, this ignores leap seconds.
pub(crate) const DAY_US: i64 = 86_400 * SECOND_US;

/// Days in 400 years, after which the Gregorian calendar repeats.
const ERA_DAYS: i64 = 146_097;

/// The date of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last day of a year.
pub(crate) fn civil_of_day(day: i64) -> (i64, i64, i64) {
    let day = day + MARCH_0_TO_EPOCH_DAYS;
    let (era, day_of_era) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    // Subtract the leap days: one in 4 years, none in 100, one again in 400.
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA_DAYS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Any five consecutive months without February have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - days_before_month(month_from_march) + 1;
    let (month, carry) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (era * 400 + year_of_era + carry, month, day_of_month)
}

/// The day, counted from 1970-01-01, of a date.
pub(crate) fn day_of_civil(year: i64, month: i64, day_of_month: i64) -> i64 {
    let (month_from_march, year) = if month > 2 {
        (month - 3, year)
    } else {
        (month + 9, year - 1)
    };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100
        + days_before_month(month_from_march)
        + day_of_month
        - 1;
    era * ERA_DAYS + day_of_era - MARCH_0_TO_EPOCH_DAYS
}

/// Days from 0000-03-01 to 1970-01-01.
const MARCH_0_TO_EPOCH_DAYS: i64 = 719_468;

fn days_before_month(month_from_march: i64) -> i64 {
    (153 * month_from_march + 2) / 5
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn days_agree_with_an_independent_calendar(us in -60_000_000_000_000_000_i64..200_000_000_000_000_000) {
            let theirs = jiff::Timestamp::from_microsecond(us).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
            let (year, month, day) = civil_of_day(us.div_euclid(DAY_US));
            prop_assert_eq!(
                (year, month, day),
                (i64::from(theirs.year()), i64::from(theirs.month()), i64::from(theirs.day()))
            );
        }

        #[test]
        fn a_day_is_the_day_of_its_date(day in -106_751_992_i64..106_751_992) {
            let (year, month, day_of_month) = civil_of_day(day);
            prop_assert_eq!(day_of_civil(year, month, day_of_month), day);
        }
    }
}
