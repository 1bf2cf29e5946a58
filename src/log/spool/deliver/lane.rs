//! A lane: delivers one stream's records to their writer, from memory while it keeps up, from
//! disk while it does not.
//!
//! Invariant: memory holds a limited number of records and bytes. Records beyond that drop
//! their payload. Their result senders are kept, by sequence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::lag::Lag;
use crate::log::record::Delivered;
use crate::log::spool::catalog::Position;
use crate::log::spool::mutex::locked;
use crate::log::spool::usage::UsageCounters;

/// The state that both ends of a lane share.
#[derive(Debug)]
pub(crate) struct Lane<R> {
    state: Mutex<LaneState<R>>,
}

#[derive(Debug)]
pub(crate) struct LaneState<R> {
    pub(crate) lag: Lag,
    /// Payload bytes in memory.
    pub(crate) queued_bytes: usize,
    waiting: HashMap<u64, oneshot::Sender<R>>,
    /// The lane delivers nothing more.
    abandoned: bool,
    /// Number of result senders at which closed ones are removed.
    prune_at: usize,
}

/// The group committer's end of a lane.
#[derive(Debug)]
pub(crate) struct LaneSender<L, R> {
    lane: Arc<Lane<R>>,
    stream: usize,
    frames: flume::Sender<Delivered<Option<L>, R>>,
    bytes_max: usize,
}

/// With fewer result senders than this, the closed ones are not worth a search.
const PRUNE_AT_LEAST: usize = 1024;

impl<R> Lane<R> {
    pub(crate) fn new(lag: Lag) -> Self {
        Self {
            state: Mutex::new(LaneState {
                lag,
                queued_bytes: 0,
                waiting: HashMap::new(),
                abandoned: false,
                prune_at: PRUNE_AT_LEAST,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LaneState<R>> {
        locked(&self.state)
    }
}

impl<R> LaneState<R> {
    /// Takes the result sender of a record.
    pub(crate) fn waiting(&mut self, sequence: u64) -> Option<oneshot::Sender<R>> {
        self.waiting.remove(&sequence)
    }

    /// Stops delivery: records stay in the spool, and every result receiver gets an error.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.waiting.clear();
    }

    /// Keeps `result` until the record is read from disk. Clients give up long before a long
    /// outage ends. Removing their senders each time the map has doubled bounds it by twice the
    /// number of clients.
    fn keep(&mut self, sequence: u64, result: oneshot::Sender<R>) {
        if self.waiting.len() >= self.prune_at {
            self.waiting.retain(|_, result| !result.is_closed());
            self.prune_at = (2 * self.waiting.len()).max(PRUNE_AT_LEAST);
        }
        self.waiting.insert(sequence, result);
    }
}

impl<L, R> LaneSender<L, R> {
    pub(crate) fn new(
        stream: usize,
        lane: Arc<Lane<R>>,
        frames: flume::Sender<Delivered<Option<L>, R>>,
        bytes_max: usize,
    ) -> Self {
        Self {
            stream,
            lane,
            frames,
            bytes_max,
        }
    }

    /// Passes a durable record on: into memory, or as a position on disk.
    pub(crate) fn offer(
        &self,
        at: Position,
        frame: Delivered<Option<L>, R>,
        usage: &UsageCounters,
    ) {
        let mut guard = self.lane.lock();
        let state = &mut *guard;
        // Counted under the lock: a reader that catches up finds exactly the records counted
        // that were offered to it.
        usage.add(self.stream, 1, u64::from(frame.items));
        if state.abandoned {
            return;
        }
        let queued = state.queued_bytes + frame.payload.len();
        // An empty lane takes any record: a lane that goes to disk must have something in
        // memory that wakes the reader.
        let fits = state.queued_bytes == 0 || queued <= self.bytes_max;
        let mut frame = Some(frame);
        let entered = state.lag.offer(at, || {
            let Some(offered) = frame.take_if(|_| fits) else {
                return false;
            };
            match self.frames.try_send(offered) {
                Ok(()) => true,
                Err(error) => {
                    frame = Some(error.into_inner());
                    false
                }
            }
        });
        if entered {
            state.queued_bytes = queued;
        } else if let Some(result) = frame.and_then(|frame| frame.result)
            && !result.is_closed()
        {
            state.keep(at.sequence, result);
        }
    }
}
