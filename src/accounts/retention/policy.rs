//! What is kept, and for how long.
//!
//! Pure: no database, no clock.

use std::time::Duration;

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions::calendar::DAY_US;
use crate::partitions::range::Range;

/// How long rows are kept. `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Rows of the event tables, in the order of [`Table::ALL`].
    pub tables: [Option<Duration>; Table::ALL.len()],
    /// Rows in quarantine, since they were put there.
    pub quarantine: Option<Duration>,
    /// The ledger rows of dead spools, and log entries of partitions that are gone.
    pub accounts: Option<Duration>,
    /// Detached partitions stay as tables.
    pub keeps_detached: bool,
}

impl Policy {
    /// Whether anything is ever removed.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.quarantine.is_some()
            || self.accounts.is_some()
            || self.tables.iter().any(Option::is_some)
    }

    /// The time before which a table's rows are not kept.
    #[must_use]
    pub fn cutoff(&self, table: Table, now: Micros) -> Option<Micros> {
        self.tables[table as usize].map(|kept| before(now, kept))
    }
}

/// The time that is `length` before `now`.
pub(crate) fn before(now: Micros, length: Duration) -> Micros {
    let length_us = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    Micros(now.0.saturating_sub(length_us))
}

/// Whether a partition holds nothing that is kept. One without an end holds what is to come.
pub(crate) fn is_due(range: Range, cutoff: Micros) -> bool {
    range.to_us != i64::MAX && range.to_us <= cutoff.0
}

/// The time from which on rows are kept once the partitions that end at `ends` are gone: whole days,
/// so that it moves once a day at most.
pub(crate) fn kept_from(cutoff: Micros, ends: impl Iterator<Item = i64>) -> i64 {
    let day = cutoff.0.saturating_sub(cutoff.0.rem_euclid(DAY_US));
    ends.fold(day, i64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_due_once_all_of_it_is_older_than_what_is_kept() {
        let day = |n: i64| n * DAY_US;
        let range = |from: i64, to: i64| Range {
            from_us: from,
            to_us: to,
        };
        let policy = Policy {
            tables: [Some(Duration::from_secs(90 * 86_400)), None, None],
            ..Policy::default()
        };
        let now = Micros(day(100) + 5);
        let cutoff = policy.cutoff(Table::Exposures, now).unwrap();
        assert_eq!(cutoff, Micros(day(10) + 5));
        for (range, due) in [
            (range(day(8), day(9)), true),
            (range(day(9), day(10)), true),
            (range(i64::MIN, day(10)), true),
            (range(day(9), day(10) + 5), true),
            (range(day(9), day(10) + 6), false),
            (range(day(10), day(11)), false),
            (range(day(0), day(30)), false),
            (range(day(0), i64::MAX), false),
        ] {
            assert_eq!(is_due(range, cutoff), due, "{range:?}");
        }
        assert_eq!(policy.cutoff(Table::Interactions, now), None);
        assert_eq!(kept_from(cutoff, std::iter::empty()), day(10));
        assert_eq!(
            kept_from(cutoff, [day(9), day(10) + 5].into_iter()),
            day(10) + 5
        );
        let for_ever = Policy {
            tables: [Some(Duration::MAX); 3],
            ..Policy::default()
        };
        assert_eq!(
            for_ever.cutoff(Table::Exposures, now),
            Some(Micros(now.0.saturating_sub(i64::MAX)))
        );
        assert!(policy.removes() && !Policy::default().removes());
    }
}
