//! Bounds the memory for what is read of partitions: one total for a process, with any number of partitions.
//!
//! What the library fetches of a partition stays in memory until its lane takes it, also while the lane
//! does not get on. So a partition is read by who has a window of its topic, and keeps it until all that
//! was read is stored. Where there are more partitions than windows, those with something to read take
//! turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a process holds of all partitions, in bytes, beside the batches of its lanes.
const READ_BYTES_MAX: usize = 72 << 20;

/// Windows of each topic, at most: as many lanes as the spool has for a table.
const PER_TOPIC_MAX: usize = 8;

/// What the library asks for of a partition at a time.
pub const FETCHED_BYTES: usize = 1 << 20;

/// What a reader takes from the library at a time.
pub const TAKEN_BYTES: usize = 256 << 10;

/// With less in its queue the library would fetch in drops.
const QUEUED_BYTES_LEAST: usize = 512 << 10;

const QUEUED_BYTES_MAX: usize = 4 << 20;

/// Pause before a partition without new messages and without a window is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The same for each partition that is read here: looks cost the brokers a little.
const LOOK_EVERY_EACH: Duration = Duration::from_millis(1);

/// How the memory is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Windows of each topic.
    pub per_topic: usize,
    /// Bytes in the library's queue of a partition, before it stops to fetch.
    pub queued_bytes: usize,
}

/// The windows of a topic.
#[derive(Debug)]
pub struct Windows {
    free: Arc<Semaphore>,
    /// Readers that have something to read and no window.
    waiting: AtomicUsize,
    /// One more of them waits.
    is_wanted: Notify,
}

/// The right to read a partition.
#[derive(Debug)]
pub struct Window {
    _permit: OwnedSemaphorePermit,
}

impl Plan {
    /// Plans for one topic for each entry of `partitions`, its number of partitions; no message is larger
    /// than `message_bytes_max`.
    pub fn of(partitions: &[usize], message_bytes_max: usize) -> Self {
        let beside = beside(message_bytes_max);
        let share = READ_BYTES_MAX / partitions.len().max(1);
        let per_topic = (share / (QUEUED_BYTES_LEAST + beside)).clamp(1, PER_TOPIC_MAX);
        let lanes: usize = partitions.iter().map(|&count| count.min(per_topic)).sum();
        let queued_bytes = (READ_BYTES_MAX / lanes.max(1)).saturating_sub(beside);
        Self {
            per_topic,
            queued_bytes: queued_bytes.clamp(QUEUED_BYTES_LEAST, QUEUED_BYTES_MAX),
        }
    }
}

/// What a window may hold beside the library's queue: the queue's last fetch, which exceeds it, and what
/// was taken.
fn beside(message_bytes_max: usize) -> usize {
    FETCHED_BYTES.max(message_bytes_max) + TAKEN_BYTES + message_bytes_max
}

impl Windows {
    /// This many windows.
    pub fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            waiting: AtomicUsize::new(0),
            is_wanted: Notify::new(),
        }
    }

    /// A window, if one is free.
    pub fn try_take(&self) -> Option<Window> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Window { _permit: permit })
    }

    /// Waits for a window. Cancel safe.
    pub async fn take(&self) -> Window {
        let _waiting = Waiting::new(&self.waiting);
        self.is_wanted.notify_one();
        let permit = Arc::clone(&self.free).acquire_owned().await;
        Window {
            _permit: permit.expect("nobody closes it"),
        }
    }

    /// Whether a reader waits for a window.
    pub fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until a reader waits for a window.
    pub async fn wanted(&self) {
        while !self.are_wanted() {
            self.is_wanted.notified().await;
        }
    }

    /// Pause before a partition without new messages is looked at again.
    pub fn look_after(self: &Arc<Self>) -> Duration {
        let readers = u32::try_from(Arc::strong_count(self)).unwrap_or(u32::MAX);
        LOOK_EVERY + LOOK_EVERY_EACH.saturating_mul(readers)
    }
}

/// Counts a reader while it waits.
struct Waiting<'w>(&'w AtomicUsize);

impl<'w> Waiting<'w> {
    fn new(count: &'w AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn all_that_is_held_of_any_number_of_partitions_is_below_the_total() {
        for message_bytes_max in [16 << 10, 1 << 20, 1_048_588, 4 << 20, 11 << 20] {
            for partitions in [1, 2, 4, 8, 9, 100, 1000, 32_768] {
                for topics in [[partitions; 3], [1, partitions, 2]] {
                    let plan = Plan::of(&topics, message_bytes_max);
                    let lanes = topics.map(|count| count.min(plan.per_topic));
                    let each = plan.queued_bytes + beside(message_bytes_max);
                    let all = lanes.iter().sum::<usize>() * each;
                    assert!(all <= READ_BYTES_MAX, "{topics:?}: {plan:?} is {all}");
                    assert!(plan.per_topic >= 1, "{plan:?}");
                }
            }
        }
        // Few partitions of messages as usual are all read at once.
        assert_eq!(Plan::of(&[8, 8, 8], 1_048_588).per_topic, 8);
    }

    #[tokio::test]
    async fn a_window_goes_to_who_waits_and_one_that_waits_no_more_is_not_counted() {
        let windows = Windows::new(1);
        let held = windows.try_take().expect("a free one");
        assert!(windows.try_take().is_none());
        assert!(windows.wanted().now_or_never().is_none());
        {
            let waiting = windows.take();
            tokio::pin!(waiting);
            assert!(waiting.as_mut().now_or_never().is_none());
            assert!(windows.are_wanted());
            windows.wanted().await;
        }
        assert!(!windows.are_wanted(), "it gave up");
        assert!(windows.wanted().now_or_never().is_none());
        drop(held);
        let taken = windows.take().await;
        assert!(windows.try_take().is_none());
        drop(taken);
        assert!(windows.try_take().is_some());
    }
}
