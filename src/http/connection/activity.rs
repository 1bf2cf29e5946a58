//! What one connection is doing, and its deadlines.
//!
//! Three deadlines, one for each thing that a client can hold back here: the head of a request, the
//! next request, and the reading of a response. `http::ingest::body::read` has the deadline of a body.
//! The state is shared by the connection's stream, which sees bytes, by its requests, and by the
//! task that closes the connection. Knows nothing of sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A response's deadline grows by a second for each 16 KiB. A client that reads more slowly than an
/// old modem is not reading.
const ANSWER_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Time that a connection has to end once its graceful shutdown has begun.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Once the service stops: time for a head to arrive, and for a response to be read.
const STOP_MAX: Duration = Duration::from_secs(2);

/// How long a client may hold back what comes next.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A request's head, from its first byte. On a new connection, also the wait for that byte.
    pub head: Duration,
    /// The wait for the next request.
    pub idle: Duration,
    /// The reading of a response.
    pub write: Duration,
}

/// Why this side closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Overdue {
    /// A request's head did not arrive in time.
    Head,
    /// No request came in time.
    Idle,
    /// A response was not read in time.
    Answer,
    /// The connection was beyond the cap, and its short time is over.
    Extra,
    /// The connection waited for a request, and others needed its place.
    Evicted,
    /// The service stops, and the client delays that.
    Stopping,
}

impl Overdue {
    /// The label of the metric.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Head => "head_timeout",
            Self::Idle => "idle",
            Self::Answer => "write_timeout",
            Self::Extra => "refused",
            Self::Evicted => "evicted",
            Self::Stopping => "stopping",
        }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    deadlines: Deadlines,
    state: Mutex<State>,
    evict: Notify,
}

#[derive(Debug)]
struct State {
    /// Since when the connection waits for a request.
    waits_since: Instant,
    /// When the first byte of the awaited head arrived.
    head_since: Option<Instant>,
    http2: bool,
    /// Requests in progress: their responses are not sent in full.
    requests: usize,
    /// Requests begun so far.
    begun: u64,
    /// Responses that are not sent in full: request number and deadline.
    unsent: Vec<(u64, Instant)>,
    /// Since when the socket accepts no bytes.
    blocked_since: Option<Instant>,
    evicted: bool,
    /// When the service began to stop.
    stops_since: Option<Instant>,
    /// A deadline that no activity extends.
    until: Option<(Instant, Overdue)>,
}

impl Activity {
    /// The state of a connection that was opened at `now`.
    pub(crate) fn new(deadlines: Deadlines, now: Instant) -> Self {
        Self {
            deadlines,
            state: Mutex::new(State {
                waits_since: now,
                head_since: None,
                http2: false,
                requests: 0,
                begun: 0,
                unsent: Vec::new(),
                blocked_since: None,
                evicted: false,
                stops_since: None,
                until: None,
            }),
            evict: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a deadline that no activity extends.
    pub(crate) fn end_at(&self, at: Instant, why: Overdue) {
        self.state().until = Some((at, why));
    }

    /// Marks the connection as HTTP/2: its bytes are not taken for those of a head.
    pub(crate) fn is_http2(&self) {
        self.state().http2 = true;
    }

    /// Records that bytes arrived. If they may belong to a request's head, returns how many
    /// requests began before that one.
    pub(crate) fn read(&self, now: Instant) -> Option<u64> {
        let mut state = self.state();
        if state.requests > 0 || state.http2 {
            return None;
        }
        state.head_since.get_or_insert(now);
        Some(state.begun)
    }

    /// Records since when the socket accepts no bytes; `None` once it does again.
    pub(crate) fn blocked(&self, since: Option<Instant>) {
        self.state().blocked_since = since;
    }

    /// Begins a request; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InProgress {
        let mut state = self.state();
        state.requests += 1;
        state.begun += 1;
        InProgress {
            activity: Arc::clone(self),
            number: state.begun,
        }
    }

    /// Since when the connection waits for a request, and whether it ever had one. `None` while a
    /// request is in progress, and after an eviction.
    pub(crate) fn waits(&self) -> Option<(Instant, bool)> {
        let state = self.state();
        (state.requests == 0 && !state.evicted).then_some((state.waits_since, state.begun > 0))
    }

    /// Asks the connection to make room for another. A request that comes first is still served.
    pub(crate) fn evict(&self) {
        self.state().evicted = true;
        self.evict.notify_one();
    }

    /// Completes once the connection was asked to make room.
    pub(crate) async fn evicted(&self) {
        self.evict.notified().await;
    }

    /// Records that the service stops: a client that delays the stop has at most `STOP_MAX`.
    pub(crate) fn stop(&self, now: Instant) {
        let mut state = self.state();
        state.stops_since = Some(now);
        for (_, by) in &mut state.unsent {
            *by = (*by).min(now + STOP_MAX);
        }
    }

    /// Whether a request is in progress.
    pub(crate) fn is_busy(&self) -> bool {
        self.state().requests > 0
    }

    /// Records that the graceful shutdown has begun. Without a request, the connection has
    /// `CLOSE_MAX` to end.
    pub(crate) fn is_closing(&self, now: Instant, why: Overdue) {
        let mut state = self.state();
        state.evicted = false;
        if state.requests == 0 && state.until.is_none() {
            state.until = Some((now + CLOSE_MAX, why));
        }
    }

    /// The next deadline, and why the connection is closed if nothing happens before it.
    pub(crate) fn deadline(&self) -> Option<(Instant, Overdue)> {
        let state = self.state();
        let waits = (state.requests == 0).then(|| {
            if state.evicted {
                return (state.waits_since, Overdue::Evicted);
            }
            if let Some(stops) = state.stops_since {
                return (state.waits_since.max(stops) + STOP_MAX, Overdue::Stopping);
            }
            match state.head_since {
                Some(since) if !state.http2 => (since + self.deadlines.head, Overdue::Head),
                None if state.begun == 0 && !state.http2 => {
                    (state.waits_since + self.deadlines.head, Overdue::Head)
                }
                _ => (state.waits_since + self.deadlines.idle, Overdue::Idle),
            }
        });
        // Once `until` is set, the wait for a request has no deadline, apart from an eviction's.
        let waits = waits.filter(|_| state.until.is_none() || state.evicted);
        let answers = state.unsent.iter().map(|&(_, by)| (by, Overdue::Answer));
        let blocked = state
            .blocked_since
            .map(|since| (since + self.deadlines.write, Overdue::Answer));
        waits
            .into_iter()
            .chain(answers)
            .chain(blocked)
            .chain(state.until)
            .min_by_key(|&(at, _)| at)
    }
}

/// A request, from its head to the last byte of its response.
#[derive(Debug)]
pub(crate) struct InProgress {
    activity: Arc<Activity>,
    number: u64,
}

impl InProgress {
    /// Records that the response is handed to the connection; its deadline runs until it is sent.
    pub(super) fn answered(&self, bytes: u64) {
        let longer = Duration::from_secs(bytes / ANSWER_BYTES_PER_SECOND);
        let mut state = self.activity.state();
        let time = match state.stops_since {
            Some(_) => STOP_MAX,
            None => self.activity.deadlines.write + longer,
        };
        state.unsent.push((self.number, Instant::now() + time));
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.unsent.retain(|&(number, _)| number != self.number);
        state.requests -= 1;
        if state.requests == 0 {
            state.waits_since = Instant::now();
            state.head_since = None;
        }
    }
}

#[cfg(test)]
mod tests;
