//! Whether a lane delivers from memory or from disk: the state machine alone.
//!
//! Invariant: each record is delivered once, in sequence order. While on disk, `offer` never
//! enqueues, so an empty queue stays empty until `catch_up`. The disk reader stops at `last`,
//! so nothing that it has read can be enqueued later. Not synchronised: callers hold the lane's
//! mutex.

use crate::log::spool::catalog::Position;

/// The lag of a lane: in memory, or on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lag {
    /// The last sequence that was offered; zero before the first.
    last: u64,
    /// Where the records begin that are only on disk; `None` while in memory.
    on_disk_from: Option<Position>,
}

impl Lag {
    /// A lane without records on disk.
    pub(crate) fn in_memory() -> Self {
        Self {
            last: 0,
            on_disk_from: None,
        }
    }

    /// A lane with the records from `from` to `last` on disk, as after a restart.
    pub(crate) fn on_disk(from: Position, last: u64) -> Self {
        Self {
            last,
            on_disk_from: Some(from),
        }
    }

    /// Offers a durable record. `enter` enqueues it in memory if there is room; returns whether
    /// it did.
    pub(crate) fn offer(&mut self, at: Position, enter: impl FnOnce() -> bool) -> bool {
        assert!(
            self.last < at.sequence,
            "a record is offered twice, or out of order"
        );
        self.last = at.sequence;
        if self.on_disk_from.is_some() {
            return false;
        }
        let entered = enter();
        if !entered {
            self.on_disk_from = Some(at);
        }
        entered
    }

    /// Where to read from, while on disk.
    pub(crate) fn on_disk_from(&self) -> Option<Position> {
        self.on_disk_from
    }

    /// The last sequence that may be read from disk.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The reader has read up to and including `sequence`. If that is the last record offered,
    /// the lane is in memory again. Returns whether it is.
    pub(crate) fn catch_up(&mut self, sequence: u64) -> bool {
        if sequence >= self.last {
            self.on_disk_from = None;
        }
        self.on_disk_from.is_none()
    }
}

#[cfg(test)]
mod tests;
