//! Time ranges, and the intervals that divide time into them.
//!
//! Invariant: the ranges of an interval tile the time line: every instant is in exactly one, and
//! each begins where the one before it ends. All ranges are half-open and in UTC. Pure: knows no
//! database and no clock.

use std::fmt;
use std::str::FromStr;

use super::calendar::{DAY_US, SECOND_US, civil_of_day, day_of_civil};
use super::literal::timestamp;
use crate::event::table::Table;

/// The length of a partition's range.
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

/// A half-open range of time, in microseconds since the UNIX epoch, UTC.
///
/// The extremes of `i64` stand for an open end (`MINVALUE`, `-infinity` and their opposites).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// The first instant inside.
    pub from_us: i64,
    /// The first instant after it.
    pub to_us: i64,
}

/// An unknown partition interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no partition interval {0:?}: it is day, week or month")]
pub struct UnknownInterval(String);

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
    /// The range of this interval that contains an instant.
    ///
    /// Total: at the extremes of `i64` the range is cut off.
    pub fn range_of(self, occurred_us: i64) -> Range {
        let day = occurred_us.div_euclid(DAY_US);
        let (first, next) = match self {
            Interval::Day => (day, day + 1),
            Interval::Week => {
                // Day 0 is a Thursday, so day -3 is a Monday.
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

    /// The range that contains `now_us`, and the next `ahead` ranges.
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
    /// Whether an instant is inside.
    pub fn contains(self, occurred_us: i64) -> bool {
        self.from_us <= occurred_us && occurred_us < self.to_us
    }

    /// Whether an instant is in both.
    pub fn overlaps(self, other: Range) -> bool {
        self.from_us.max(other.from_us) < self.to_us.min(other.to_us)
    }

    /// The name of the partition of `table` for this range: `_YYYY_MM` for a calendar month,
    /// `_YYYY_MM_DD` for a day or a week, with the number of days (`_4d`) for any others, as where the
    /// interval has changed, and with the time of day for anything finer.
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
            let days = self.to_us.saturating_sub(self.from_us) / DAY_US;
            match days == 1 || self == Interval::Week.range_of(self.from_us) {
                true => format!("{stem}_{day_of_month:02}"),
                false => format!("{stem}_{day_of_month:02}_{days}d"),
            }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> i64 {
        let at: jiff::Timestamp = text.parse().expect("a timestamp");
        at.as_microsecond()
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
    fn a_partition_of_other_days_is_named_with_their_number() {
        for (from, to, name) in [
            ("2026-11-27", "2026-12-01", "exposure_events_2026_11_27_4d"),
            ("2026-11-24", "2026-12-01", "exposure_events_2026_11_24_7d"),
            ("2026-11-01", "2026-11-30", "exposure_events_2026_11_01_29d"),
            ("2026-11-01", "2026-12-01", "exposure_events_2026_11"),
            ("2026-11-30", "2026-12-07", "exposure_events_2026_11_30"),
            ("2026-12-01", "2026-12-02", "exposure_events_2026_12_01"),
        ] {
            assert_eq!(range(from, to).partition_name(Table::Exposures), name);
        }
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

    }
}
