//! How full the spool is, in numbers that anybody may read at any time.
//!
//! Each number is right on its own; two read together may be a group apart.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::format::{Counts, STREAMS_MAX};

/// How full the spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// The most that they may have.
    pub bytes_max: u64,
    /// Segment files.
    pub segments: u64,
    /// Frames that are not yet retired, by stream.
    pub frames: Counts,
    /// Items that are not yet retired, by stream.
    pub items: Counts,
    /// Items that were made durable since the instance was born, by stream.
    pub accepted: Counts,
    /// Items that were accepted since the instance was born and are neither
    /// settled nor on disk. Before the ledger was read: those of which the
    /// segments show that they are missing.
    pub lost: u64,
    /// The same, by stream.
    pub lost_items: Counts,
    /// Frames that were refused with nobody waiting for the answer, since the start.
    pub refused: u64,
    /// The last attempt to write failed.
    pub failed: bool,
}

/// The numbers behind [`Usage`].
#[derive(Debug)]
pub(crate) struct UsageCounters {
    pub(crate) bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) frames: [AtomicU64; STREAMS_MAX],
    pub(crate) items: [AtomicU64; STREAMS_MAX],
    pub(crate) accepted: [AtomicU64; STREAMS_MAX],
    /// Lost items as the start found them, by stream.
    pub(crate) found_lost: [AtomicU64; STREAMS_MAX],
    /// Items that turned out to be damaged since then, by stream.
    pub(crate) since_lost: [AtomicU64; STREAMS_MAX],
    pub(crate) refused: AtomicU64,
    /// Bytes that still fit into the segment that is being written.
    pub(crate) active_free: AtomicU64,
    /// Nothing can be written until the disk works again.
    pub(crate) failed: AtomicBool,
    /// The file system has less free space than is to be left to others.
    pub(crate) reserve_reached: AtomicBool,
    /// Free bytes of the file system, when last asked for.
    pub(crate) free_bytes: AtomicU64,
    /// The file system refused space though it says that some is free.
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

    /// Frames and items of a stream that are not settled.
    pub(crate) fn of_stream(&self, stream: usize) -> (u64, u64) {
        let load = |counts: &[AtomicU64; STREAMS_MAX]| counts[stream].load(Ordering::Relaxed);
        (load(&self.frames), load(&self.items))
    }

    /// Frames that nobody has settled yet came in.
    pub(crate) fn add(&self, stream: usize, frames: u64, items: u64) {
        self.frames[stream].fetch_add(frames, Ordering::Relaxed);
        self.items[stream].fetch_add(items, Ordering::Relaxed);
    }

    /// Frames were settled, or lost.
    pub(crate) fn take(&self, stream: usize, frames: u64, items: u64) {
        self.frames[stream].fetch_sub(frames, Ordering::Relaxed);
        self.items[stream].fetch_sub(items, Ordering::Relaxed);
    }
}

fn zeros() -> [AtomicU64; STREAMS_MAX] {
    std::array::from_fn(|_| AtomicU64::new(0))
}
