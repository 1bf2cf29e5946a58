//! How a lane gets on, for readiness and metrics.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use super::ledger::{Stream, Totals};

/// What can be said of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Batches are stored.
    Good,
    /// Postgres is away or busy; the lane waits for it.
    Away,
    /// An operator has to mend something; the lane tries again now and then.
    Fault,
}

/// What a lane's writer says of itself.
#[derive(Debug)]
pub struct LaneStatus {
    /// The stream that the lane carries.
    pub stream: Stream,
    health: AtomicU8,
    totals: Mutex<Totals>,
}

impl LaneStatus {
    /// A lane that was not heard of yet: not good before Postgres was reached.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            health: AtomicU8::new(Health::Good as u8),
            totals: Mutex::default(),
        }
    }

    /// How the lane got on at its last attempt.
    pub fn health(&self) -> Health {
        Health::of(self.health.load(Ordering::Relaxed))
    }

    /// What the ledger said after the last batch.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the health; returns what it was.
    pub(super) fn set(&self, health: Health) -> Health {
        Health::of(self.health.swap(health as u8, Ordering::Relaxed))
    }

    pub(super) fn settle(&self, totals: Totals) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }
}

impl Health {
    fn of(number: u8) -> Self {
        match number {
            0 => Health::Good,
            1 => Health::Away,
            _ => Health::Fault,
        }
    }
}
