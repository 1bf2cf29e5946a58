//! Look-ups of single keys and tenants that the snapshot does not have: they may be new.
//!
//! A sender of keys that do not exist cannot keep the database busy: at most twenty a second are
//! looked up in any second, one at a time, each of them once while it is unknown, and an answer that
//! there is none holds for five seconds.
//!
//! Requests ask, and the loop that refreshes the snapshot answers, on its connection. Knows neither
//! SQL nor the snapshot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::key::KeyHash;

/// Look-ups a second in the long run, and at once: together twenty in any second.
const PER_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Longest wait of a request.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long an answer that there is none holds.
const ABSENT_FOR: Duration = Duration::from_secs(5);

/// Look-ups that may wait for the loop: those of three seconds.
const ASKS_MAX: usize = 64;

/// A key or tenant that a request names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// The key with this hash.
    Key(KeyHash),
    /// The tenant with this name or id.
    Tenant(String),
}

/// The look-ups of one service.
#[derive(Debug)]
pub(super) struct Lookups {
    asks: mpsc::Sender<Wanted>,
    /// Held by the loop while it is connected.
    asked: tokio::sync::Mutex<mpsc::Receiver<Wanted>>,
    state: Mutex<State>,
    made: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Whether the loop is connected, and answers.
    is_open: bool,
    entries: HashMap<Wanted, Entry>,
    /// When all look-ups of a second are free again.
    free_at: Instant,
}

#[derive(Debug)]
enum Entry {
    /// It is being looked up; the answer comes through the channel.
    Pending(watch::Sender<Option<bool>>),
    /// There was none at this time.
    Absent(Instant),
}

/// What requests ask for; dropping it leaves all that wait without an answer.
#[derive(Debug)]
pub(super) struct Asked<'l> {
    lookups: &'l Lookups,
    asked: tokio::sync::MutexGuard<'l, mpsc::Receiver<Wanted>>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        Self {
            asks,
            asked: tokio::sync::Mutex::new(asked),
            state: Mutex::new(State {
                is_open: false,
                entries: HashMap::new(),
                free_at: Instant::now(),
            }),
            made: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Whether look-ups are answered at all: the loop is connected.
    pub(super) fn is_open(&self) -> bool {
        self.state().is_open
    }

    /// Whether there is such a key or tenant; `None` if that is not known.
    pub(super) async fn find(&self, wanted: Wanted) -> Option<bool> {
        let mut answer = match self.ask(wanted, Instant::now()) {
            Ok(answer) => answer,
            Err(known) => return known,
        };
        match timeout(WAIT_MAX, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => *answer,
            // No answer in time, or the connection broke.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Where the answer will come from; an error is what is known at once.
    fn ask(
        &self,
        wanted: Wanted,
        now: Instant,
    ) -> Result<watch::Receiver<Option<bool>>, Option<bool>> {
        let mut state = self.state();
        match state.entries.get(&wanted) {
            Some(Entry::Pending(answer)) => return Ok(answer.subscribe()),
            Some(Entry::Absent(at)) if now.saturating_duration_since(*at) < ABSENT_FOR => {
                return Err(Some(false));
            }
            _ => {}
        }
        let free_at = state.free_at.max(now) + SECOND / PER_SECOND;
        if !state.is_open || free_at > now + SECOND || self.asks.try_send(wanted.clone()).is_err() {
            return Err(None);
        }
        state.free_at = free_at;
        let (sender, answer) = watch::channel(None);
        state.entries.insert(wanted, Entry::Pending(sender));
        Ok(answer)
    }

    /// Begins to answer.
    pub(super) async fn open(&self) -> Asked<'_> {
        let asked = self.asked.lock().await;
        self.state().is_open = true;
        Asked {
            lookups: self,
            asked,
        }
    }
}

impl Asked<'_> {
    /// The next key or tenant to look up.
    pub(super) async fn next(&mut self) -> Wanted {
        let next = self.asked.recv().await;
        next.expect("the sender lives as long as the receiver")
    }

    /// Answers all that wait for this key or tenant.
    pub(super) fn answer(&self, wanted: &Wanted, found: bool) {
        self.lookups.made.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut state = self.lookups.state();
        // At most a hundred are younger: no more are looked up in that time.
        state.entries.retain(|_, entry| match entry {
            Entry::Pending(_) => true,
            Entry::Absent(at) => now.saturating_duration_since(*at) < ABSENT_FOR,
        });
        let entry = match found {
            true => state.entries.remove(wanted),
            false => state.entries.insert(wanted.clone(), Entry::Absent(now)),
        };
        if let Some(Entry::Pending(waiting)) = entry {
            waiting.send_replace(Some(found));
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = self.lookups.state();
        state.is_open = false;
        state.entries.clear();
        while self.asked.try_recv().is_ok() {}
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    fn tenant(n: u32) -> Wanted {
        Wanted::Tenant(n.to_string())
    }

    #[tokio::test]
    async fn at_most_twenty_a_second_are_looked_up_and_each_once() {
        let lookups = Lookups::new();
        let now = Instant::now();
        assert_eq!(lookups.ask(tenant(0), now).err(), Some(None), "not open");
        let mut asked = lookups.open().await;
        let mut granted = 0;
        for ms in 0..1000 {
            let now = now + Duration::from_millis(ms);
            let is_new = lookups.ask(tenant(u32::try_from(ms).unwrap()), now).is_ok();
            granted += u32::from(is_new);
            if is_new {
                // Asking again costs nothing.
                let again = lookups.ask(tenant(u32::try_from(ms).unwrap()), now);
                again.unwrap();
            }
        }
        assert!((15..=20).contains(&granted), "{granted}");
        for _ in 0..granted {
            let next = asked.next().await;
            asked.answer(&next, false);
        }
        assert_eq!(lookups.made(), u64::from(granted));
        assert_eq!(lookups.find(tenant(0)).await, Some(false));
        assert!(lookups.state().entries.len() <= 20);
        drop(asked);
        assert_eq!(lookups.find(tenant(0)).await, None, "nothing answers");
    }

    #[tokio::test]
    async fn all_that_wait_for_one_key_learn_that_it_was_found() {
        let lookups = Lookups::new();
        let mut asked = lookups.open().await;
        let answering = async {
            let next = asked.next().await;
            asked.answer(&next, true);
        };
        let find = || lookups.find(tenant(1));
        let (one, other, ()) = tokio::join!(find(), find(), answering);
        assert_eq!((one, other), (Some(true), Some(true)));
        assert!(lookups.state().entries.is_empty());
    }
}
