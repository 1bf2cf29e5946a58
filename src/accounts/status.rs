//! A lane's status, for readiness and metrics.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Stream, Totals};
use crate::event::time::Micros;

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
    /// When the first row of the batch at hand was received.
    held_from: Option<Micros>,
    /// Since when rows are seen to wait, without a batch being stored in between.
    waiting_since: Option<Instant>,
    /// When the first row of the last stored batch was received, and when that batch was stored.
    last: Option<(Micros, Instant)>,
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

    /// Records when the first row of the batch at hand was received: no row of the lane that is not
    /// stored is older.
    pub(crate) fn holds(&self, received_at: Option<Micros>) {
        self.progress().held_from = received_at;
    }

    /// Records that the batch at hand is stored.
    pub(crate) fn has_stored(&self) {
        let mut progress = self.progress();
        progress.storing_since = None;
        progress.waiting_since = None;
        if let Some(received_at) = progress.held_from.take() {
            progress.last = Some((received_at, Instant::now()));
        }
    }

    /// How old the oldest row is that is not stored, from its receipt on; `None` if there is none.
    /// `rows`: those of the lane that are not acked.
    ///
    /// Exact once the lane has the row at hand. Before that (at a start while Postgres is away) it
    /// is at least the time since the row was first seen to wait.
    pub fn oldest_age(&self, rows: u64, now: Micros) -> Option<Duration> {
        let mut progress = self.progress();
        if rows == 0 {
            progress.waiting_since = None;
            return None;
        }
        let waits = progress
            .waiting_since
            .get_or_insert_with(Instant::now)
            .elapsed();
        let held = progress.held_from.map(|from| between(from, now));
        Some(held.map_or(waits, |held| held.max(waits)))
    }

    /// How long the oldest row of the last batch took from its receipt to the COMMIT; `None` before
    /// the first batch.
    pub fn last_lag(&self, now: Micros) -> Option<Duration> {
        let (received_at, stored) = self.progress().last?;
        Some(between(received_at, now).saturating_sub(stored.elapsed()))
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

    /// Another process stores the stream now: nothing of it counts here.
    pub(crate) fn reset(&self) {
        *self.progress() = Progress::default();
        self.set(Health::Good);
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

/// From one time to a later one; nothing if the clock was set back in between.
fn between(from: Micros, to: Micros) -> Duration {
    Duration::from_micros(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

impl Health {
    /// The health in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Good => "good",
            Health::SettingAside => "setting_aside",
            Health::Away => "away",
            Health::Undecided => "undecided",
            Health::Fault => "fault",
        }
    }

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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::table::Table;

    #[test]
    fn the_age_of_the_oldest_row_counts_from_its_receipt() {
        let lane = LaneStatus::new(Stream {
            log: Uuid::nil(),
            lineage: Uuid::nil(),
            number: 0,
            shard: 0,
            table: Table::Exposures,
        });
        let at = |seconds: i64| Micros(seconds * 1_000_000);
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
        assert_eq!(seconds(lane.oldest_age(0, at(100))), None, "nothing waits");
        assert_eq!(lane.last_lag(at(100)), None, "nothing was stored");
        // Seen to wait before the lane has it at hand: at least that long.
        assert!(lane.oldest_age(3, at(100)).is_some());
        for (received, now, age) in [
            (Some(at(40)), 100, 60),
            (Some(at(140)), 100, 0),
            (None, 100, 0),
        ] {
            lane.holds(received);
            assert_eq!(
                seconds(lane.oldest_age(3, at(now))),
                Some(age),
                "{received:?}"
            );
        }
        lane.holds(Some(at(40)));
        lane.has_stored();
        assert_eq!(seconds(lane.oldest_age(0, at(100))), None, "all is stored");
        let lag = lane.last_lag(at(100)).expect("a batch was stored");
        assert!((59..=60).contains(&lag.as_secs()), "{lag:?}");
        // Rows of the next batch are younger than those that are stored.
        assert!(seconds(lane.oldest_age(1, at(100))).is_some_and(|age| age < 10));
    }
}
