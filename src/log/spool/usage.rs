//! The spool's usage counters, readable at any time.
//!
//! Each number is exact. Two of them read together may be one group apart.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::error;

use super::format::{Counts, STREAMS_MAX};

/// The usage of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Limit on `bytes`.
    pub bytes_max: u64,
    /// Segment files.
    pub segments: u64,
    /// Records that are not yet acked, by stream.
    pub frames: Counts,
    /// Items that are not yet acked, by stream.
    pub items: Counts,
    /// Items that were made durable under this spool id, by stream.
    pub accepted: Counts,
    /// Items that were accepted under this spool id and are neither acked nor on disk. Until
    /// the ledger is read: the items that the segments show to be missing.
    pub lost: u64,
    /// The same, by stream.
    pub lost_items: Counts,
    /// Records that were refused without a receiver for the answer, since the start.
    pub refused: u64,
    /// The last attempt to write failed.
    pub failed: bool,
}

/// The counters behind [`Usage`].
#[derive(Debug)]
pub(crate) struct UsageCounters {
    pub(crate) bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) frames: [AtomicU64; STREAMS_MAX],
    pub(crate) items: [AtomicU64; STREAMS_MAX],
    pub(crate) accepted: [AtomicU64; STREAMS_MAX],
    /// Lost items as found at start, by stream.
    pub(crate) found_lost: [AtomicU64; STREAMS_MAX],
    /// Items found to be lost since then, by stream.
    pub(crate) since_lost: [AtomicU64; STREAMS_MAX],
    pub(crate) refused: AtomicU64,
    /// Bytes that still fit into the active segment.
    pub(crate) active_free: AtomicU64,
    /// Nothing can be written until the disk works again.
    pub(crate) failed: AtomicBool,
    /// The file system has less free space than the reserve.
    pub(crate) reserve_reached: AtomicBool,
    /// Free bytes of the file system when last checked.
    pub(crate) free_bytes: AtomicU64,
    /// The file system refused space although it reports free space.
    pub(crate) no_space: AtomicBool,
    /// The directory was removed or replaced; nothing is written any more.
    pub(crate) gone: AtomicBool,
}

impl UsageCounters {
    pub(crate) fn new(accepted: Counts) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            frames: zeros(),
            items: zeros(),
            accepted: accepted.map(AtomicU64::new),
            found_lost: zeros(),
            since_lost: zeros(),
            refused: AtomicU64::new(0),
            active_free: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            reserve_reached: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
            no_space: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn usage(&self, bytes_max: u64) -> Usage {
        let all = |counts: &[AtomicU64; STREAMS_MAX]| -> Counts {
            std::array::from_fn(|stream| counts[stream].load(Ordering::Relaxed))
        };
        let (found, since) = (all(&self.found_lost), all(&self.since_lost));
        let lost_items: Counts = std::array::from_fn(|stream| found[stream] + since[stream]);
        Usage {
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max,
            segments: self.segments.load(Ordering::Relaxed),
            frames: all(&self.frames),
            items: all(&self.items),
            accepted: all(&self.accepted),
            lost: lost_items.iter().sum(),
            lost_items,
            refused: self.refused.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Records and items of a stream that are not acked.
    pub(crate) fn of_stream(&self, stream: usize) -> (u64, u64) {
        let load = |counts: &[AtomicU64; STREAMS_MAX]| counts[stream].load(Ordering::Relaxed);
        (load(&self.frames), load(&self.items))
    }

    /// Counts records that came in and are not yet acked.
    pub(crate) fn add(&self, stream: usize, frames: u64, items: u64) {
        self.frames[stream].fetch_add(frames, Ordering::Relaxed);
        self.items[stream].fetch_add(items, Ordering::Relaxed);
    }

    /// Counts records that were acked, or lost.
    pub(crate) fn take(&self, stream: usize, frames: u64, items: u64) {
        for (counter, taken) in [(&self.frames[stream], frames), (&self.items[stream], items)] {
            let less = |count: u64| Some(count.saturating_sub(taken));
            let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            if before.is_ok_and(|before| before < taken) {
                error!(
                    stream,
                    taken, "more records of the spool are acked or lost than it counts; a bug"
                );
                debug_assert!(false, "the spool's usage would be negative");
            }
        }
    }
}

fn zeros() -> [AtomicU64; STREAMS_MAX] {
    std::array::from_fn(|_| AtomicU64::new(0))
}
