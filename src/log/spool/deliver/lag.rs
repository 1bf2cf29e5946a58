//! Whether a lane keeps up: the state machine, and nothing else.
//!
//! Keeps one invariant: each frame is given once, in order, either from memory
//! or from disk. While a lane is behind nothing enters its memory, so memory
//! that was found empty then stays empty until the lane has caught up; and
//! nobody reads from disk what was not yet offered here, so nothing that was
//! read can be offered to memory afterwards. Whoever shares it puts a mutex around.

use crate::log::spool::catalog::Position;

/// How a lane's reader stands to its appender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lag {
    /// The last sequence that was offered; zero before the first.
    last: u64,
    /// Where the frames begin that are only on disk; `None`: there are none.
    behind_from: Option<Position>,
}

impl Lag {
    /// A lane with nothing on disk.
    pub(crate) fn caught_up() -> Self {
        Self {
            last: 0,
            behind_from: None,
        }
    }

    /// A lane whose frames from `from` to `last` are on disk, as after a restart.
    pub(crate) fn behind(from: Position, last: u64) -> Self {
        Self {
            last,
            behind_from: Some(from),
        }
    }

    /// A frame is durable. `enter` puts it into memory if there is room; says
    /// whether it did.
    pub(crate) fn offer(&mut self, at: Position, enter: impl FnOnce() -> bool) -> bool {
        self.last = at.sequence;
        if self.behind_from.is_some() {
            return false;
        }
        let entered = enter();
        if !entered {
            self.behind_from = Some(at);
        }
        entered
    }

    /// Where to read from, if the lane is behind.
    pub(crate) fn behind_from(&self) -> Option<Position> {
        self.behind_from
    }

    /// The last sequence that may be read from disk.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The reader has read up to and including `sequence`. If that is all there
    /// is, frames come through memory again.
    pub(crate) fn catch_up(&mut self, sequence: u64) -> bool {
        if sequence >= self.last {
            self.behind_from = None;
        }
        self.behind_from.is_none()
    }
}

#[cfg(test)]
mod tests;
