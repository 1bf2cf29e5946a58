//! What is appended to the log, what is delivered from it, and why an append is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

/// A record to append.
#[derive(Debug)]
pub struct Record<M, R> {
    /// The stream; it selects the lane.
    pub stream: u8,
    /// Items in the payload. The log only counts them.
    pub items: u32,
    /// The payload. The log does not look inside.
    pub payload: Bytes,
    /// Whose turn it is when several wait.
    pub turn: Turn,
    /// Receives the answer when the record is durable, or refused.
    pub durable: Option<oneshot::Sender<Result<(), AppendError>>>,
    /// Held for as long as the payload is in memory, and delivered with it.
    pub memory: M,
    /// Receives the result of the record. Delivered with it, even if the payload left memory in
    /// between.
    pub result: Option<oneshot::Sender<R>>,
}

/// A record's place among those that wait to be made durable: owners take turns.
#[derive(Debug, Default)]
pub struct Turn {
    owner: u128,
    /// Counters of what waits, of the owner and of all.
    counters: Option<[Arc<AtomicUsize>; 2]>,
}

impl Turn {
    /// A place for the owner, counted in `counters` until it is dropped.
    #[must_use]
    pub fn new(owner: u128, counters: [Arc<AtomicUsize>; 2]) -> Self {
        for counter in &counters {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            owner,
            counters: Some(counters),
        }
    }

    /// Who takes turns with others.
    #[must_use]
    pub fn owner(&self) -> u128 {
        self.owner
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for counter in self.counters.iter().flatten() {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A record delivered to its lane's writer.
#[derive(Debug)]
pub struct Delivered<M, R> {
    /// Its sequence; records of a stream are delivered in ascending order.
    pub sequence: u64,
    /// Items in the payload.
    pub items: u32,
    /// The payload, as it was appended.
    pub payload: Bytes,
    /// What [`Record::memory`] held. The log delivers an `Option`: `None` for a record read
    /// from disk.
    pub memory: M,
    /// Receives the result of the record.
    pub result: Option<oneshot::Sender<R>>,
}

/// Why a record is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log is at its size limit. Nothing of the record is kept. There is room again once
    /// records are acked.
    #[error("the spool is at its cap; try again later")]
    AtCap,
    /// The disk is full, or its free space is below the reserve. Nothing of the record is kept.
    #[error("the disk has no free space for the spool; try again later")]
    NoSpace,
    /// The record is larger than the spool's settings allow.
    #[error("the record is larger than the spool takes")]
    TooLarge,
    /// The disk failed. The record is not delivered in this run of the process. If the process
    /// ends before the disk works again, the next run may find the record on disk and deliver
    /// it, once. Also the error for a stream that the log was not opened with, and for numbers
    /// that have run out.
    #[error("the spool's disk failed; try again later")]
    Failed,
    /// The disk has not answered for longer than a sender should wait. Nothing of the record is
    /// kept.
    #[error("the spool's disk does not answer; try again later")]
    Stalled,
    /// The spool's directory was removed or replaced. Nothing of the record is kept, and only a
    /// restart helps.
    #[error("the spool's directory was removed or replaced")]
    Gone,
    /// The log is on other machines, and they do not acknowledge. The record may be kept or not.
    #[error("the log does not acknowledge; try again later")]
    Away,
    /// The log refused a group of records as too large together, and the record is not to blame. It may be
    /// kept or not.
    #[error("the log refused the record together with others as too large; try again later")]
    GroupTooLarge,
    /// This process reads the log and appends nothing to it.
    #[error("nothing is appended to the log here")]
    NotHere,
}
