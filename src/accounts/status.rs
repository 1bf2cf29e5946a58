//! How a lane gets on, for readiness and metrics.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Stream, Totals};

/// What can be said of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Batches are stored.
    Good,
    /// Batches are settled, but all of their rows are set aside.
    SettingAside,
    /// Postgres is away or busy; the lane waits for it.
    Away,
    /// Postgres refuses rows; the lane waits for more, to tell why.
    Undecided,
    /// An operator has to mend something; the lane tries again now and then.
    Fault,
}

/// What a lane's writer says of itself.
#[derive(Debug)]
pub struct LaneStatus {
    /// The stream that the lane carries.
    pub stream: Stream,
    health: AtomicU8,
    was_reached: AtomicBool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    totals: Totals,
    /// When the batch was begun that is being stored.
    storing_since: Option<Instant>,
}

/// A batch takes well under a second. When one takes this long, Postgres is away
/// without having said so: frozen, or behind a network that swallows everything.
const SILENCE_MAX: Duration = Duration::from_secs(5);

impl LaneStatus {
    /// A lane that was not heard of yet. Until the database is reached the keys
    /// are not read, so that readiness does not hang on the lane's word.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            health: AtomicU8::new(Health::Good as u8),
            was_reached: AtomicBool::new(false),
            progress: Mutex::default(),
        }
    }

    /// How the lane got on at its last attempt, or gets on if that takes long.
    pub fn health(&self) -> Health {
        let last = Health::of(self.health.load(Ordering::Relaxed));
        let since = self.progress().storing_since;
        match since.is_some_and(|since| since.elapsed() > SILENCE_MAX) {
            true => last.max(Health::Away),
            false => last,
        }
    }

    /// What the ledger said after the last batch.
    pub fn totals(&self) -> Totals {
        self.progress().totals
    }

    /// A batch is about to be stored, or is.
    pub(crate) fn is_storing(&self, storing: bool) {
        self.progress().storing_since = storing.then(Instant::now);
    }

    /// Makes the health no better than `health`; returns what it was.
    pub(crate) fn raise(&self, health: Health) -> Health {
        Health::of(self.health.fetch_max(health as u8, Ordering::Relaxed))
    }

    /// Makes the health good if it was `health`, and says whether it was.
    pub(crate) fn clear(&self, health: Health) -> bool {
        let good = Health::Good as u8;
        self.health
            .compare_exchange(health as u8, good, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Sets the health; returns what it was.
    pub(crate) fn set(&self, health: Health) -> Health {
        Health::of(self.health.swap(health as u8, Ordering::Relaxed))
    }

    /// Whether the ledger was ever read: before that nothing of the lane is.
    pub fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    pub(crate) fn settle(&self, totals: Totals) {
        self.was_reached.store(true, Ordering::Relaxed);
        self.progress().totals = totals;
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each part is replaced as a whole, so a panic elsewhere has not left it half done.
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
