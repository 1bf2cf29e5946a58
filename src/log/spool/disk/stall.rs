//! For how long a thread of the spool has waited for the disk.
//!
//! A thread that waits for a hanging disk cannot report it. So it records when the wait began,
//! and other threads read that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sync takes milliseconds; a wait this long is worth a warning.
pub(crate) const TOLD_AFTER: Duration = Duration::from_millis(1500);

/// After this long, new records are refused and waiting senders get an answer: they can send to
/// another replica, or queue the events themselves.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_secs(5);

/// The start of the disk operation that has not returned yet.
#[derive(Debug)]
pub(crate) struct Stall {
    epoch: Instant,
    /// Milliseconds since `epoch`, plus 1; zero while no operation runs.
    since: AtomicU64,
}

impl Stall {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            since: AtomicU64::new(0),
        }
    }

    /// A disk operation starts.
    pub(crate) fn begins(&self) {
        self.since.store(self.now() + 1, Ordering::Relaxed);
    }

    /// The operation has returned.
    pub(crate) fn ends(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// For how long the current operation has run; zero if none does.
    pub(crate) fn lasts(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis((self.now() + 1).saturating_sub(since)),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}
