//! The group committer: one write and one fdatasync for all records that wait.
//!
//! Invariant: `Ok` is answered, and a record is delivered, only after the sync that covers the
//! record has returned.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::error;

use super::appender::{Appender, NotStaged};
use super::fair_queue::FairQueue;
use crate::log::record::AppendError;
use crate::log::record::Delivered;
use crate::log::record::Record;
use crate::log::spool::deliver::lane::LaneSender;
use crate::log::spool::format::{FRAME_HEADER_BYTES, to_usize};
use crate::log::spool::shared::Shared;

/// Takes records, makes them durable group by group, and passes them to their lanes.
#[derive(Debug)]
pub struct GroupCommitter<L, R> {
    shared: Arc<Shared>,
    entries: flume::Receiver<Record<L, R>>,
    /// Records that were received and are in no group yet.
    waiting: FairQueue<Record<L, R>>,
    /// By stream; `None` for those that the spool was not opened with.
    lanes: Vec<Option<LaneSender<L, R>>>,
    pub(crate) log: Appender,
    /// Records that are staged, in the log's order.
    run: Vec<Record<L, R>>,
}

/// The least time between the starts of small groups: one sync costs the same CPU for one small
/// record as for thirty.
const SMALL_GROUPS_EVERY: Duration = Duration::from_millis(1);

/// Fewer records than this come from few senders, which should not wait for each other.
const SEVERAL: usize = 4;

/// Above this size one fdatasync is already amortised, and closed-loop senders would sit idle.
const SMALL_GROUP_BYTES: usize = 32 << 10;

/// Records that are received before they are in a group, so that their owners can take turns.
const WAITING_MAX: usize = 4096;

/// How often segments are deleted and failures are checked.
const TICK: Duration = Duration::from_secs(1);

impl<L, R> GroupCommitter<L, R> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        entries: flume::Receiver<Record<L, R>>,
        lanes: Vec<Option<LaneSender<L, R>>>,
        log: Appender,
    ) -> Self {
        Self {
            shared,
            entries,
            waiting: FairQueue::new(),
            lanes,
            log,
            run: Vec::new(),
        }
    }

    /// Runs until the channel of records is closed. Blocks: run it on a dedicated thread. When
    /// it returns, every record has its answer, and the lanes end after their last records.
    pub fn run(mut self) {
        let mut group = Vec::new();
        let mut ticked = Instant::now();
        let mut began = Instant::now();
        let mut wants_company = false;
        loop {
            if self.waiting.len() == 0 {
                match self.entries.recv_timeout(TICK) {
                    Ok(first) => {
                        if wants_company {
                            std::thread::sleep(SMALL_GROUPS_EVERY.saturating_sub(began.elapsed()));
                        }
                        self.enqueue(first);
                    }
                    Err(flume::RecvTimeoutError::Timeout) => {}
                    Err(flume::RecvTimeoutError::Disconnected) => break,
                }
            }
            if self.waiting.len() > 0 {
                began = Instant::now();
                let bytes = self.gather(&mut group);
                wants_company = group.len() >= SEVERAL && bytes < SMALL_GROUP_BYTES;
                self.shared.stall.begins();
                self.commit(&mut group);
                self.shared.stall.ends();
            }
            if ticked.elapsed() >= TICK {
                self.shared.stall.begins();
                self.tick();
                self.shared.stall.ends();
                ticked = Instant::now();
            }
        }
        self.shared.reclaim(false);
    }

    /// Takes the records that wait, up to the size of a group; returns their bytes. Owners take
    /// turns: a record waits for the group that is being written and for one round of the others,
    /// not for all that they have sent before it.
    fn gather(&mut self, group: &mut Vec<Record<L, R>>) -> usize {
        while self.waiting.len() < WAITING_MAX
            && let Ok(next) = self.entries.try_recv()
        {
            self.enqueue(next);
        }
        let mut group_bytes = 0;
        while group_bytes < self.shared.settings.group_bytes_max
            && let Some((bytes, next)) = self.waiting.pop()
        {
            group_bytes += bytes;
            group.push(next);
        }
        group_bytes
    }

    fn enqueue(&mut self, entry: Record<L, R>) {
        let bytes = entry.payload.len() + to_usize(FRAME_HEADER_BYTES);
        self.waiting.push(entry.turn.owner(), bytes, entry);
    }

    /// Makes a group durable, except for the records that have to be refused.
    pub(crate) fn commit(&mut self, group: &mut Vec<Record<L, R>>) {
        for entry in group.drain(..) {
            let lane = self.lanes.get(usize::from(entry.stream));
            if !lane.is_some_and(Option::is_some) {
                error!(
                    stream = entry.stream,
                    "a record names a stream that the spool was not opened with"
                );
                self.refuse(entry.durable, AppendError::Failed);
                continue;
            }
            match self.stage(&entry) {
                Ok(()) => self.run.push(entry),
                Err(refused) => self.refuse(entry.durable, refused),
            }
        }
        self.flush();
    }

    /// Deletes segments without unacked records, and tries to recover from failures.
    pub(crate) fn tick(&mut self) {
        self.shared.reclaim(true);
        self.log.tick();
    }

    fn stage(&mut self, entry: &Record<L, R>) -> Result<(), AppendError> {
        let log = &mut self.log;
        match log.stage(entry.stream, entry.items, &entry.payload) {
            Ok(()) => return Ok(()),
            Err(NotStaged::AppendError(refused)) => return Err(refused),
            Err(NotStaged::NeedsSegment) => {}
        }
        self.flush();
        let frame_bytes = FRAME_HEADER_BYTES + entry.payload.len() as u64;
        self.log.begin(frame_bytes)?;
        match self.log.stage(entry.stream, entry.items, &entry.payload) {
            Ok(()) => Ok(()),
            Err(NotStaged::AppendError(refused)) => Err(refused),
            // The sequence floor was raised in between. The next attempt begins above it.
            Err(NotStaged::NeedsSegment) => Err(AppendError::Failed),
        }
    }

    /// Writes what is staged, answers the senders, passes the records to their lanes.
    fn flush(&mut self) {
        match self.log.write() {
            Err(refused) => {
                for entry in std::mem::take(&mut self.run) {
                    self.refuse(entry.durable, refused);
                }
            }
            Ok(staged) => {
                assert!(
                    staged.len() == self.run.len(),
                    "a record would be answered as durable that was not written"
                );
                // The answers come first: senders wait for them.
                for entry in &mut self.run {
                    if let Some(durable) = entry.durable.take() {
                        answer(durable, Ok(()));
                    }
                }
                for (entry, staged) in self.run.drain(..).zip(staged) {
                    let frame = Delivered {
                        sequence: staged.at.sequence,
                        items: entry.items,
                        payload: entry.payload,
                        memory: Some(entry.memory),
                        result: entry.result,
                    };
                    let lane = self.lanes[staged.stream].as_ref();
                    lane.expect("records of other streams are refused before they are staged")
                        .offer(staged.at, frame, &self.shared.usage);
                }
            }
        }
    }

    fn refuse(
        &mut self,
        durable: Option<oneshot::Sender<Result<(), AppendError>>>,
        refused: AppendError,
    ) {
        if matches!(refused, AppendError::AtCap | AppendError::NoSpace) {
            self.log.note_full(refused);
        }
        match durable {
            Some(durable) => answer(durable, Err(refused)),
            None => {
                self.shared.usage.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn answer(durable: oneshot::Sender<Result<(), AppendError>>, result: Result<(), AppendError>) {
    // The receiver may be gone.
    durable.send(result).ok();
}
