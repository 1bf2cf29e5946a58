//! What a table's partitions say together: the times that they cover, and how time is cut.

use tokio_postgres::Client;

use super::catalog::{Bound, Partition, begin, coverage_of, end, read_parent, read_partitions};
use super::coverage::Coverage;
use super::error::Error;
use super::kept::read_kept_from;
use super::range::{Interval, Range};
use crate::event::table::Table;

/// The farthest that local midnight is from midnight UTC: other tools cut time by a time zone.
const ZONE_US: i64 = 14 * 3_600_000_000;

/// The partitions of a table, as far as new ones depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) coverage: Coverage,
    /// The interval of the latest partition; `None` if it is of none that is known.
    pub(crate) interval: Option<Interval>,
    /// Whether rows without a partition have a place.
    pub(crate) has_default: bool,
    /// Partitions that end before this time, or at it, are not made again.
    pub(crate) kept_from_us: i64,
}

impl Default for Layout {
    fn default() -> Self {
        Self::of(&[], i64::MIN)
    }
}

/// Reads the partitions of a table.
pub(crate) async fn read_layout(client: &mut Client, table: Table) -> Result<Layout, Error> {
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let partitions = read_partitions(&tx, &parent).await?;
    let kept_from_us = read_kept_from(&tx, table).await?;
    end(tx, table).await?;
    Ok(Layout::of(&partitions, kept_from_us))
}

/// The interval in which a table's partitions go on if nothing else is said: that of the latest
/// one, and days where the suite or an operator made it.
///
/// # Errors
///
/// When the catalog cannot be read, or there is no such table by time.
pub async fn read_interval(client: &mut Client, table: Table) -> Result<Interval, Error> {
    let layout = read_layout(client, table).await?;
    Ok(layout.interval.unwrap_or_default())
}

impl Layout {
    fn of(partitions: &[Partition], kept_from_us: i64) -> Self {
        let ranges = partitions
            .iter()
            .filter_map(|partition| match partition.bound {
                Bound::Range(range) if !partition.is_detaching => Some(range),
                _ => None,
            });
        let latest = ranges.filter(|range| range.to_us != i64::MAX && range.from_us != i64::MIN);
        Self {
            coverage: coverage_of(partitions),
            interval: latest.max_by_key(|range| range.to_us).and_then(interval_of),
            has_default: partitions.iter().any(|p| p.bound == Bound::Default),
            kept_from_us,
        }
    }
}

/// The interval that a range is one of, in any time zone.
fn interval_of(range: Range) -> Option<Interval> {
    [Interval::Day, Interval::Week, Interval::Month]
        .into_iter()
        .find(|interval| {
            // The middle is in the same interval wherever it is midnight.
            let middle_us = range.from_us / 2 + range.to_us / 2;
            let like = interval.range_of(middle_us);
            let is_near = |a: i64, b: i64| a.abs_diff(b) <= ZONE_US.unsigned_abs();
            is_near(range.from_us, like.from_us) && is_near(range.to_us, like.to_us)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_recognised_in_any_time_zone() {
        for (from, to, expected) in [
            (
                "2026-03-01T00:00:00Z",
                "2026-04-01T00:00:00Z",
                Some(Interval::Month),
            ),
            (
                "2026-02-28T23:00:00Z",
                "2026-03-31T22:00:00Z",
                Some(Interval::Month),
            ),
            (
                "2024-02-01T08:00:00Z",
                "2024-03-01T08:00:00Z",
                Some(Interval::Month),
            ),
            (
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
                Some(Interval::Week),
            ),
            (
                "2026-11-26T00:00:00Z",
                "2026-11-27T00:00:00Z",
                Some(Interval::Day),
            ),
            (
                "2026-11-25T18:30:00Z",
                "2026-11-26T18:30:00Z",
                Some(Interval::Day),
            ),
            ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", None),
            ("2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z", None),
        ] {
            let us = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
            let range = Range {
                from_us: us(from),
                to_us: us(to),
            };
            assert_eq!(interval_of(range), expected, "{from} to {to}");
        }
    }
}
