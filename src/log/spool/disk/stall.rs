//! For how long the disk has kept a thread of the spool waiting.
//!
//! A disk that hangs says nothing, and the thread that waits for it cannot
//! either. So the thread notes when it began, and others look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sync takes milliseconds; this long it is worth a warning.
pub(crate) const TOLD_AFTER: Duration = Duration::from_millis(1500);

/// From here on nothing more is taken, and waiting senders are answered: they
/// have other instances, or their own queue, to turn to.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_secs(5);

/// When the disk was asked for what it has not answered yet.
#[derive(Debug)]
pub(crate) struct Stall {
    epoch: Instant,
    /// Milliseconds since the epoch, plus 1; zero while nothing is asked.
    since: AtomicU64,
}

impl Stall {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            since: AtomicU64::new(0),
        }
    }

    /// The disk is about to be asked.
    pub(crate) fn begins(&self) {
        self.since.store(self.now() + 1, Ordering::Relaxed);
    }

    /// It has answered.
    pub(crate) fn ends(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// For how long the disk has not answered; zero if it is not asked.
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
