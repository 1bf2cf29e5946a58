//! What lanes remember while no more partitions may be created this hour.
//!
//! Pure: time is passed in.

use std::time::{Duration, Instant};

use crate::event::table::Table;

/// While the budget is exhausted the catalog is read at most this often, for any number of batches:
/// another process or an operator may have created what is missing.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What is known while the budget is exhausted.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// While the budget is exhausted: when to try it again.
    until: Option<Instant>,
    /// When the catalog was last read, by table; `None` if never or forgotten since.
    read_at: [Option<Instant>; Table::ALL.len()],
}

impl Shortage {
    /// Whether what was missing at the last read can still be assumed missing.
    pub(super) fn holds(&self, table: Table, now: Instant) -> bool {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < LOOK_AGAIN;
        self.until.is_some_and(|until| now < until)
            && self.read_at[table as usize].is_some_and(is_fresh)
    }

    /// Records that the budget is exhausted. True if it was not before.
    pub(super) fn begin(&mut self, until: Instant) -> bool {
        self.until.replace(until).is_none()
    }

    /// Records that the budget is not exhausted. True if it was before.
    pub(super) fn end(&mut self) -> bool {
        self.until.take().is_some()
    }

    pub(super) fn has_read(&mut self, table: Table, now: Instant) {
        self.read_at[table as usize] = Some(now);
    }

    pub(super) fn forget(&mut self, table: Table) {
        self.read_at[table as usize] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_budget_is_spent_the_catalog_is_read_once_in_so_long() {
        let (clicks, shows) = (Table::Interactions, Table::Exposures);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut shortage = Shortage::default();
        shortage.has_read(clicks, start);
        assert!(!shortage.holds(clicks, start), "there is no shortage");
        assert!(shortage.begin(after(10)));
        assert!(!shortage.begin(after(10)), "said once");
        assert!(shortage.holds(clicks, after(9)));
        assert!(!shortage.holds(shows, after(9)), "never read");
        assert!(!shortage.holds(clicks, after(10)));
        shortage.has_read(clicks, after(10));
        assert!(!shortage.begin(after(12)));
        assert!(shortage.holds(clicks, after(11)));
        shortage.forget(clicks);
        assert!(!shortage.holds(clicks, after(11)), "Postgres knows better");
        assert!(shortage.end());
        assert!(!shortage.end(), "said once");
    }
}
