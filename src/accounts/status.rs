//! A lane's status, for readiness and metrics.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Stream, Totals};

/// The health of a lane, from good to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Batches are stored.
    Good,
    /// Batches are committed, but all of their rows go to quarantine.
    SettingAside,
    /// Postgres is unreachable or busy; the lane retries.
    Away,
    /// Postgres refuses rows; the lane waits for more rows to decide why.
    Undecided,
    /// An operator has to act; the lane retries every few seconds.
    Fault,
}

/// What a lane reports about itself.
#[derive(Debug)]
pub struct LaneStatus {
    /// The stream that the lane stores.
    pub stream: Stream,
    health: AtomicU8,
    was_reached: AtomicBool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    totals: Totals,
    /// When the batch that is being stored was begun.
    storing_since: Option<Instant>,
}

/// A batch takes well under a second. After this long Postgres is away without an error: frozen, or
/// behind a network that drops packets.
const SILENCE_MAX: Duration = Duration::from_secs(5);

impl LaneStatus {
    /// The status of a lane before its first attempt. It starts as good: until the database is
    /// reached, readiness fails because the tenants are unread.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            health: AtomicU8::new(Health::Good as u8),
            was_reached: AtomicBool::new(false),
            progress: Mutex::default(),
        }
    }

    /// The health after the last attempt, or of the current one if that takes too long.
    pub fn health(&self) -> Health {
        let last = Health::of(self.health.load(Ordering::Relaxed));
        let since = self.progress().storing_since;
        match since.is_some_and(|since| since.elapsed() > SILENCE_MAX) {
            true => last.max(Health::Away),
            false => last,
        }
    }

    /// The ledger's totals after the last batch.
    pub fn totals(&self) -> Totals {
        self.progress().totals
    }

    /// Records whether a batch is being stored.
    pub(crate) fn is_storing(&self, storing: bool) {
        self.progress().storing_since = storing.then(Instant::now);
    }

    /// Makes the health at least as bad as `health`; returns the health before.
    pub(crate) fn raise(&self, health: Health) -> Health {
        Health::of(self.health.fetch_max(health as u8, Ordering::Relaxed))
    }

    /// Makes the health good if it is `health`. Returns whether it was.
    pub(crate) fn clear(&self, health: Health) -> bool {
        let good = Health::Good as u8;
        self.health
            .compare_exchange(health as u8, good, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Sets the health; returns the health before.
    pub(crate) fn set(&self, health: Health) -> Health {
        Health::of(self.health.swap(health as u8, Ordering::Relaxed))
    }

    /// Whether the ledger was ever read. Until then the totals are unknown.
    pub fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    /// Records the totals that the ledger has now.
    pub(crate) fn update(&self, totals: Totals) {
        self.was_reached.store(true, Ordering::Relaxed);
        self.progress().totals = totals;
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each part is replaced as a whole, so a panic elsewhere leaves none half written.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn of(number: u8) -> Self {
        match number {
            0 => Health::Good,
            1 => Health::SettingAside,
            2 => Health::Away,
            3 => Health::Undecided,
            _ => Health::Fault,
        }
    }
}
