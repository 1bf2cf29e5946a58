//! Time ranges, the calendar that cuts them, and how Postgres writes them down.
//!
//! Invariant: the ranges of an interval tile the time line: every instant lies
//! in exactly one, and each begins where the one before it ends. All of it is
//! UTC and half-open. Pure: knows no database and no clock.

use std::fmt;
use std::str::FromStr;

use crate::event::Table;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// How much time one partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interval {
    /// A day from midnight UTC.
    #[default]
    Day,
    /// Seven days from Monday, midnight UTC.
    Week,
    /// A calendar month.
    Month,
}

/// A half-open stretch of time, in microseconds since the UNIX epoch, UTC.
///
/// The far ends of `i64` stand for what lies beyond all time (`MINVALUE`,
/// `-infinity` and their opposites).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// The first instant inside.
    pub from_us: i64,
    /// The first instant after it.
    pub to_us: i64,
}

/// An interval that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no partition interval {0:?}: it is day, week or month")]
pub struct UnknownInterval(String);

/// What a partition says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Rows of this time.
    Range(Range),
    /// Whatever no other partition holds.
    Default,
}

impl FromStr for Interval {
    type Err = UnknownInterval;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "day" => Ok(Interval::Day),
            "week" => Ok(Interval::Week),
            "month" => Ok(Interval::Month),
            _ => Err(UnknownInterval(s.to_owned())),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interval::Day => "day",
            Interval::Week => "week",
            Interval::Month => "month",
        })
    }
}

impl Interval {
    /// The range of this interval that holds an instant.
    ///
    /// Total: at the far ends of `i64`, where no calendar reaches, the range is
    /// cut off at the end.
    pub fn range_of(self, occurred_us: i64) -> Range {
        let day = occurred_us.div_euclid(DAY_US);
        let (first, next) = match self {
            Interval::Day => (day, day + 1),
            Interval::Week => {
                // Day 0 was a Thursday, so day -3 was a Monday.
                let monday = day - (day + 3).rem_euclid(7);
                (monday, monday + 7)
            }
            Interval::Month => {
                let (year, month, _) = civil_of_day(day);
                let (next_year, next_month) = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
                (
                    day_of_civil(year, month, 1),
                    day_of_civil(next_year, next_month, 1),
                )
            }
        };
        Range {
            from_us: first.saturating_mul(DAY_US),
            to_us: next.saturating_mul(DAY_US),
        }
    }

    /// The range that holds `now_us`, and the `ahead` ranges after it.
    pub fn ranges_ahead(self, now_us: i64, ahead: u32) -> Vec<Range> {
        let mut range = self.range_of(now_us);
        let mut ranges = vec![range];
        for _ in 0..ahead {
            range = self.range_of(range.to_us);
            ranges.push(range);
        }
        ranges
    }
}

impl Range {
    /// Whether an instant lies inside.
    pub fn contains(self, occurred_us: i64) -> bool {
        self.from_us <= occurred_us && occurred_us < self.to_us
    }

    /// Whether there is an instant that lies in both.
    pub fn overlaps(self, other: Range) -> bool {
        self.from_us.max(other.from_us) < self.to_us.min(other.to_us)
    }

    /// The name of the partition of `table` for this range: `_YYYY_MM` for a
    /// calendar month, `_YYYY_MM_DD` for whole days, with the time of day added
    /// for anything finer.
    pub fn partition_name(self, table: Table) -> String {
        let (day, time_us) = (
            self.from_us.div_euclid(DAY_US),
            self.from_us.rem_euclid(DAY_US),
        );
        let (year, month, day_of_month) = civil_of_day(day);
        let stem = format!("{table}_{year:04}_{month:02}");
        if self == Interval::Month.range_of(self.from_us) {
            stem
        } else if time_us == 0 && self.to_us.rem_euclid(DAY_US) == 0 {
            format!("{stem}_{day_of_month:02}")
        } else {
            let seconds = time_us / SECOND_US;
            let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            format!("{stem}_{day_of_month:02}_{hour:02}{minute:02}{second:02}")
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{}, {})",
            timestamp(self.from_us),
            timestamp(self.to_us)
        )
    }
}

/// An instant as Postgres reads it, in any session, whatever its time zone and
/// date style.
pub(super) fn timestamp(us: i64) -> String {
    match us {
        i64::MIN => return "-infinity".to_owned(),
        i64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    let (year, month, day) = civil_of_day(us.div_euclid(DAY_US));
    let time_us = us.rem_euclid(DAY_US);
    let (seconds, fraction) = (time_us / SECOND_US, time_us % SECOND_US);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // There is no year 0: the year before 1 AD is 1 BC.
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

/// Reads what `pg_get_expr` says of a partition's bound, in a session whose
/// time zone is UTC and whose date style is ISO. None if it is no such bound.
pub(super) fn parse_bound(text: &str) -> Option<Bound> {
    if text == "DEFAULT" {
        return Some(Bound::Default);
    }
    let values = text.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?;
    let (from, to) = values.split_once(") TO (")?;
    Some(Bound::Range(Range {
        from_us: parse_end(from)?,
        to_us: parse_end(to)?,
    }))
}

fn parse_end(text: &str) -> Option<i64> {
    match text {
        "MINVALUE" => Some(i64::MIN),
        "MAXVALUE" => Some(i64::MAX),
        _ => parse_timestamp(text.strip_prefix('\'')?.strip_suffix('\'')?),
    }
}

fn parse_timestamp(text: &str) -> Option<i64> {
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

/// Days in 400 years of the Gregorian calendar, after which it repeats.
const ERA_DAYS: i64 = 146_097;

/// The date of a day counted from 1970-01-01, in the Gregorian calendar
/// extended backwards, as Postgres has it.
///
/// Years are reckoned from March, so that the leap day is a year's last.
fn civil_of_day(day: i64) -> (i64, i64, i64) {
    let day = day + MARCH_0_TO_EPOCH_DAYS;
    let (era, day_of_era) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    // Take the leap days out: one in 4 years, none in 100, one again in 400.
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA_DAYS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days, whichever five.
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
fn day_of_civil(year: i64, month: i64, day_of_month: i64) -> i64 {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> i64 {
        parse_timestamp(text).expect("a timestamp")
    }

    fn range(from: &str, to: &str) -> Range {
        Range {
            from_us: at(&format!("{from} 00:00:00+00")),
            to_us: at(&format!("{to} 00:00:00+00")),
        }
    }

    const ALL: [Interval; 3] = [Interval::Day, Interval::Week, Interval::Month];

    #[test]
    fn ranges_end_where_the_calendar_says() {
        for (interval, instant, from, to) in [
            (
                Interval::Day,
                "2026-03-01 23:59:59.999999+00",
                "2026-03-01",
                "2026-03-02",
            ),
            (
                Interval::Day,
                "2024-02-28 12:00:00+00",
                "2024-02-28",
                "2024-02-29",
            ),
            (
                Interval::Day,
                "2023-02-28 12:00:00+00",
                "2023-02-28",
                "2023-03-01",
            ),
            (
                Interval::Day,
                "2026-12-31 00:00:00+00",
                "2026-12-31",
                "2027-01-01",
            ),
            (
                Interval::Day,
                "1969-12-31 23:59:59.999999+00",
                "1969-12-31",
                "1970-01-01",
            ),
            (
                Interval::Week,
                "2026-11-22 23:00:00+00",
                "2026-11-16",
                "2026-11-23",
            ),
            (
                Interval::Week,
                "2026-11-23 00:00:00+00",
                "2026-11-23",
                "2026-11-30",
            ),
            (
                Interval::Week,
                "1970-01-01 00:00:00+00",
                "1969-12-29",
                "1970-01-05",
            ),
            (
                Interval::Month,
                "2024-02-29 23:59:59+00",
                "2024-02-01",
                "2024-03-01",
            ),
            (
                Interval::Month,
                "1900-02-28 00:00:00+00",
                "1900-02-01",
                "1900-03-01",
            ),
            (
                Interval::Month,
                "2026-12-31 23:59:59+00",
                "2026-12-01",
                "2027-01-01",
            ),
            (
                Interval::Month,
                "1969-12-31 23:59:59+00",
                "1969-12-01",
                "1970-01-01",
            ),
        ] {
            assert_eq!(
                interval.range_of(at(instant)),
                range(from, to),
                "{interval} of {instant}"
            );
        }
    }

    #[test]
    fn partitions_are_named_after_the_start_of_their_range() {
        let instant = at("2026-11-22 08:00:00+00");
        let name = |interval: Interval| interval.range_of(instant).partition_name(Table::Exposures);
        assert_eq!(name(Interval::Day), "exposure_events_2026_11_22");
        assert_eq!(name(Interval::Week), "exposure_events_2026_11_16");
        assert_eq!(name(Interval::Month), "exposure_events_2026_11");
    }

    #[test]
    fn a_partition_finer_than_a_day_is_named_with_its_time() {
        let range = Range {
            from_us: at("2026-11-22 08:30:15+00"),
            to_us: at("2026-11-23 00:00:00+00"),
        };
        assert_eq!(
            range.partition_name(Table::Interactions),
            "interaction_events_2026_11_22_083015"
        );
    }

    #[test]
    fn an_interval_reads_back_as_it_is_written() {
        for interval in ALL {
            assert_eq!(interval.to_string().parse(), Ok(interval));
        }
        let error = "hour".parse::<Interval>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no partition interval \"hour\": it is day, week or month"
        );
    }

    #[test]
    fn bounds_are_read_as_postgres_writes_them() {
        let day = range("2026-11-22", "2026-11-23");
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
        fn every_instant_lies_in_its_range_and_the_ranges_tile(us in -200_000_000_000_000_000_i64..9_000_000_000_000_000_000) {
            for interval in ALL {
                let range = interval.range_of(us);
                prop_assert!(range.contains(us));
                prop_assert_eq!(interval.range_of(range.from_us), range);
                prop_assert_eq!(interval.range_of(range.to_us - 1), range);
                prop_assert_eq!(interval.range_of(range.to_us).from_us, range.to_us);
                prop_assert_eq!(interval.range_of(range.from_us - 1).to_us, range.from_us);
            }
        }

        #[test]
        fn no_instant_is_beyond_the_calendar(us in any::<i64>()) {
            for interval in ALL {
                let range = interval.range_of(us);
                prop_assert!(range.from_us <= us && us <= range.to_us);
            }
        }

        #[test]
        fn an_instant_reads_back_as_it_is_written(us in -200_000_000_000_000_000_i64..9_000_000_000_000_000_000) {
            prop_assert_eq!(parse_timestamp(&timestamp(us)), Some(us));
        }

        #[test]
        fn days_agree_with_an_independent_calendar(us in -60_000_000_000_000_000_i64..200_000_000_000_000_000) {
            let theirs = jiff::Timestamp::from_microsecond(us).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            let (year, month, day) = civil_of_day(us.div_euclid(DAY_US));
            prop_assert_eq!(
                (year, month, day),
                (i64::from(theirs.year()), i64::from(theirs.month()), i64::from(theirs.day()))
            );
        }
    }
}
