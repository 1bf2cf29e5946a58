//! Ranges for which no partition can be made at the moment, and where their rows go until then.
//!
//! Invariant: no lane waits for another session's lock more than once in a while for the same
//! range. Pure: time is passed in.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::range::Range;
use crate::event::table::Table;

/// Where rows of a range go that has no partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Into the DEFAULT partition, from which they are moved later.
    Default,
    /// Into quarantine, until the partition can be made.
    Aside,
}

/// The ranges, each for a limited time.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    entries: Mutex<Vec<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    table: Table,
    range: Range,
    place: Place,
    until: Instant,
}

impl Deferred {
    /// Defers a range.
    pub(crate) fn put(
        &self,
        table: Table,
        range: Range,
        place: Place,
        now: Instant,
        length: Duration,
    ) {
        let entry = Entry {
            table,
            range,
            place,
            until: now + length,
        };
        self.with(|entries| {
            entries.retain(|old| old.until > now && (old.table, old.range) != (table, range));
            entries.push(entry);
        });
    }

    /// Where rows of a range go now; `None` if a partition may be tried.
    pub(crate) fn place_of(&self, table: Table, range: Range, now: Instant) -> Option<Place> {
        self.with(|entries| {
            let mut live = entries.iter().filter(|entry| entry.until > now);
            let found = live.find(|entry| (entry.table, entry.range) == (table, range));
            found.map(|entry| entry.place)
        })
    }

    /// Forgets the ranges of a table, after Postgres has said otherwise.
    pub(crate) fn forget(&self, table: Table) {
        self.with(|entries| entries.retain(|entry| entry.table != table));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_deferred_for_its_time_and_for_its_table() {
        let range = |from_us| Range {
            from_us,
            to_us: from_us + 10,
        };
        let (clicks, shows) = (Table::Interactions, Table::Exposures);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let deferred = Deferred::default();
        deferred.put(clicks, range(0), Place::Default, start, 2 * second);
        deferred.put(shows, range(0), Place::Aside, start, 5 * second);
        let place = |table, from_us, seconds: u32| {
            deferred.place_of(table, range(from_us), start + seconds * second)
        };
        assert_eq!(place(clicks, 0, 1), Some(Place::Default));
        assert_eq!(place(clicks, 0, 2), None);
        assert_eq!(place(clicks, 10, 1), None);
        assert_eq!(place(shows, 0, 4), Some(Place::Aside));
        deferred.put(shows, range(0), Place::Default, start, 9 * second);
        assert_eq!(place(shows, 0, 8), Some(Place::Default));
        deferred.forget(shows);
        assert_eq!(place(shows, 0, 1), None);
    }
}
