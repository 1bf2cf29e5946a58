//! What a shipper has done, and what keeps it from going on. Shared by those who do it, progress,
//! metrics and health.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

/// Numbers since the start, and the present trouble.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Lines that are done, one way or the other.
    pub(crate) lines: AtomicU64,
    pub(crate) accepted: AtomicU64,
    /// With `--ack committed`: of those, events that were stored before.
    pub(crate) duplicates: AtomicU64,
    /// With `--ack committed`: of those, events that Postgres refused; they are in the service's
    /// quarantine.
    pub(crate) quarantined: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) posts: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Bytes of bodies, after compression.
    pub(crate) sent_bytes: AtomicU64,
    /// Bytes of the files on disk that are done, and all of them.
    pub(crate) done_bytes: AtomicU64,
    pub(crate) all_bytes: AtomicU64,
    /// Of those that are done: bytes that a run before this one has done.
    pub(crate) skipped_bytes: AtomicU64,
    pub(crate) files: AtomicU64,
    /// Bytes of followed files that are not read yet, and bytes that are on their way.
    pub(crate) unread_bytes: AtomicU64,
    pub(crate) in_flight_bytes: AtomicU64,
    /// Files that became shorter or were written over.
    pub(crate) truncated: AtomicU64,
    /// What the directory cannot be read for.
    reading: Mutex<Option<Trouble>>,
    sending: Mutex<Option<Trouble>>,
    writing: Mutex<Option<Trouble>>,
    /// When something was delivered, or there was nothing to deliver.
    progress_at: Mutex<Option<Instant>>,
}

/// What keeps it from going on.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) since: Instant,
    pub(crate) why: String,
}

/// What can be in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Reading,
    Sending,
    Writing,
}

impl Work {
    const ALL: [Self; 3] = [Self::Reading, Self::Sending, Self::Writing];

    fn failing(self) -> &'static str {
        match self {
            Self::Reading => "files cannot be read",
            Self::Sending => "lines cannot be delivered",
            Self::Writing => "positions cannot be written",
        }
    }

    fn going_on(self) -> &'static str {
        match self {
            Self::Reading => "files can be read again",
            Self::Sending => "lines are delivered again",
            Self::Writing => "positions are written again",
        }
    }
}

/// Adds to a number.
pub(crate) fn add(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

/// Reads a number.
pub(crate) fn get(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// Takes from a number.
pub(crate) fn take(number: &AtomicU64, less: u64) {
    number.fetch_sub(less, Ordering::Relaxed);
}

/// Sets a number.
pub(crate) fn set(number: &AtomicU64, value: u64) {
    number.store(value, Ordering::Relaxed);
}

impl Status {
    fn slot(&self, work: Work) -> &Mutex<Option<Trouble>> {
        match work {
            Work::Reading => &self.reading,
            Work::Sending => &self.sending,
            Work::Writing => &self.writing,
        }
    }

    /// Notes that something fails. A run of failures for one cause is logged once: as an error if
    /// a person has to act.
    pub(crate) fn fails(&self, work: Work, why: &str, is_fault: bool) {
        let mut slot = lock(self.slot(work));
        if slot.as_ref().is_some_and(|known| known.why == why) {
            return;
        }
        let since = slot.as_ref().map_or_else(Instant::now, |known| known.since);
        *slot = Some(Trouble {
            since,
            why: why.to_owned(),
        });
        drop(slot);
        match is_fault {
            true => error!(reason = why, "{}; trying again", work.failing()),
            false => warn!(reason = why, "{}; trying again", work.failing()),
        }
    }

    /// Notes that it works.
    pub(crate) fn works(&self, work: Work) {
        let Some(trouble) = lock(self.slot(work)).take() else {
            return;
        };
        let seconds = trouble.since.elapsed().as_secs();
        info!(after_seconds = seconds, "{}", work.going_on());
    }

    /// The trouble with one kind of work.
    pub(crate) fn trouble(&self, work: Work) -> Option<Trouble> {
        lock(self.slot(work)).clone()
    }

    /// All troubles, in words.
    pub(crate) fn troubles(&self) -> Vec<(Work, String)> {
        let all = Work::ALL.into_iter();
        all.filter_map(|work| {
            let trouble = self.trouble(work)?;
            let seconds = trouble.since.elapsed().as_secs();
            let text = format!("{} for {seconds} s: {}", work.failing(), trouble.why);
            Some((work, text))
        })
        .collect()
    }

    /// Something was delivered, or there is nothing to deliver.
    pub(crate) fn progresses(&self) {
        let mut at = self
            .progress_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *at = Some(Instant::now());
    }

    /// Bytes that are not delivered, and the time since the last delivery while there are some.
    pub(crate) fn behind(&self) -> (u64, Duration) {
        let bytes = get(&self.unread_bytes) + get(&self.in_flight_bytes);
        let at = *self
            .progress_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let since = at.filter(|_| bytes > 0).map(|at| at.elapsed());
        (bytes, since.unwrap_or_default())
    }
}

/// How far it is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) lines: u64,
    pub(crate) rejected: u64,
    pub(crate) done_bytes: u64,
    pub(crate) all_bytes: u64,
    pub(crate) lines_per_second: u64,
    pub(crate) bytes_per_second: u64,
    /// `None`: not known yet.
    pub(crate) left: Option<Duration>,
}

impl Progress {
    /// After `elapsed`.
    pub(crate) fn of(status: &Status, elapsed: Duration) -> Self {
        let (done, all) = (get(&status.done_bytes), get(&status.all_bytes));
        let here = done.saturating_sub(get(&status.skipped_bytes));
        let ms = u64::try_from(elapsed.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let a_second = |number: u64| number.saturating_mul(1000) / ms;
        let rate = a_second(here);
        let left = all.saturating_sub(done).checked_div(rate);
        Self {
            lines: get(&status.lines),
            rejected: get(&status.rejected),
            done_bytes: done,
            all_bytes: all,
            lines_per_second: a_second(get(&status.lines)),
            bytes_per_second: rate,
            left: left.map(Duration::from_secs),
        }
    }
}

fn lock(slot: &Mutex<Option<Trouble>>) -> std::sync::MutexGuard<'_, Option<Trouble>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_reckoned_from_what_this_run_has_done() {
        let status = Status::default();
        let at = |seconds| Progress::of(&status, Duration::from_secs(seconds));
        set(&status.all_bytes, 1000);
        assert_eq!(at(1).left, None);
        set(&status.skipped_bytes, 400);
        set(&status.done_bytes, 600);
        set(&status.lines, 20);
        let progress = at(2);
        assert_eq!(progress.bytes_per_second, 100);
        assert_eq!(progress.lines_per_second, 10);
        assert_eq!(progress.left, Some(Duration::from_secs(4)));
        set(&status.done_bytes, 1000);
        assert_eq!(at(2).left, Some(Duration::ZERO));
    }

    #[test]
    fn a_trouble_lasts_from_its_first_failure_to_a_success() {
        let status = Status::default();
        status.fails(Work::Sending, "refused", false);
        let first = status.trouble(Work::Sending).unwrap().since;
        status.fails(Work::Sending, "503", true);
        let trouble = status.trouble(Work::Sending).unwrap();
        assert_eq!((trouble.since, &*trouble.why), (first, "503"));
        assert_eq!(status.troubles().len(), 1);
        status.works(Work::Sending);
        assert!(status.troubles().is_empty());
    }
}
