//! The writer's end of a lane: records of one stream, in order, each once.
//!
//! Knows when to take them from memory and when from disk. Does not know what they hold, nor on
//! which thread it runs. Reading from disk blocks, so it is a separate call.

pub(crate) mod cursor;

pub(crate) mod disk;
pub(crate) mod found;

use std::sync::Arc;

use super::lane::{Lane, LaneState};
use crate::log::read::Next;
use crate::log::record::Delivered;
use crate::log::spool::format::NUMBER_MAX;
use crate::log::spool::shared::Shared;
use cursor::Cursor;
use found::Found;

/// The only reader of a lane.
#[derive(Debug)]
pub struct LaneReader<L, R> {
    stream: usize,
    shared: Arc<Shared>,
    lane: Arc<Lane<R>>,
    frames: flume::Receiver<Delivered<Option<L>, R>>,
    /// A record that [`LaneReader::wait`] took from memory.
    peeked: Option<Delivered<Option<L>, R>>,
    /// The position on disk, while the lane is on disk.
    cursor: Option<Cursor>,
    /// Records up to here are acked and are skipped.
    skip: u64,
    /// What the start has found of this stream.
    found: Found,
}

impl<L, R> LaneReader<L, R> {
    pub(crate) fn new(
        stream: usize,
        shared: Arc<Shared>,
        lane: Arc<Lane<R>>,
        frames: flume::Receiver<Delivered<Option<L>, R>>,
        found: Found,
    ) -> Self {
        Self {
            stream,
            shared,
            lane,
            frames,
            peeked: None,
            cursor: None,
            skip: 0,
            found,
        }
    }

    /// The stream of these records.
    pub fn stream(&self) -> u8 {
        u8::try_from(self.stream).expect("there are fewer than 256 streams")
    }

    /// The next record, or where it comes from. Never blocks.
    pub fn try_next(&mut self) -> Next<L, R> {
        let lane = Arc::clone(&self.lane);
        let mut state = lane.lock();
        if let Some(frame) = self.peeked.take() {
            return Next::Record(self.give(&mut state, frame));
        }
        // Under the lane's lock nothing is enqueued between these two checks: an empty queue of
        // a lane on disk stays empty.
        match self.frames.try_recv() {
            Ok(frame) => Next::Record(self.give(&mut state, frame)),
            Err(_) if state.lag.on_disk_from().is_some() => Next::Fetch,
            Err(flume::TryRecvError::Empty) => Next::Empty,
            Err(flume::TryRecvError::Disconnected) => Next::Ended,
        }
    }

    /// Waits until [`LaneReader::try_next`] returns something else than [`Next::Empty`]. Safe
    /// to cancel.
    pub async fn wait(&mut self) {
        if self.peeked.is_some() || self.is_on_disk() {
            return;
        }
        // A lane only goes to disk while it holds something in memory, so this wakes for that
        // too. An error is the end; `try_next` reports it.
        if let Ok(frame) = self.frames.recv_async().await {
            self.peeked = Some(frame);
        }
    }

    /// Whether the next records, after those in memory, are on disk.
    pub fn is_on_disk(&self) -> bool {
        self.lane.lock().lag.on_disk_from().is_some()
    }

    /// At start: the database has all records up to and including `sequence`. They are skipped
    /// and count as acked.
    ///
    /// Only records of earlier runs are skipped. A watermark above all sequences that this
    /// directory has held is not believed; then this returns `false`.
    pub fn skip_to(&mut self, sequence: u64) -> bool {
        let known = sequence <= self.shared.found_last;
        if known {
            self.skip = self.skip.max(sequence);
        }
        known
    }

    /// At start: the database has a watermark that another copy of this spool has set. New
    /// records get sequences above it. The records found are delivered; the primary key keeps
    /// them from being stored twice.
    pub fn number_beyond(&mut self, watermark: u64) {
        tracing::error!(
            stream = self.stream,
            watermark,
            last = self.shared.found_last,
            "the database remembers records that this spool never had; was the spool directory \
             replaced by an older copy, or did another copy go on? What is in it is looked up \
             and stored where it is missing, nothing is skipped"
        );
        // Nothing depends on it, so a watermark that would soon use up all sequences is
        // ignored.
        if watermark < NUMBER_MAX / 2 {
            self.shared
                .sequence_floor
                .fetch_max(watermark, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Stops delivery: records stay in the spool, and every result receiver gets an error at
    /// once. Returns when the group committer has ended.
    pub async fn abandon(mut self) {
        self.lane.lock().abandon();
        self.peeked = None;
        // Drops those that are in memory already.
        while self.frames.recv_async().await.is_ok() {}
    }

    /// At start, after [`LaneReader::skip_to`] and before the first read: `acked_items` of
    /// the stream are acked according to Postgres, over all runs. The loss is counted once the
    /// reader has skipped all acked records.
    pub fn reconcile(&mut self, acked_items: u64) {
        self.found.acked = Some(acked_items);
        if !self.is_on_disk() {
            self.reckon();
        }
    }

    /// Counts the loss, once all acked records are skipped.
    fn reckon(&mut self) {
        if let Some(lost) = self.found.lost(self.skip) {
            self.shared.usage.found_lost[self.stream]
                .store(lost.items, std::sync::atomic::Ordering::Relaxed);
            lost.log(self.stream);
        }
    }

    fn give(
        &self,
        state: &mut LaneState<R>,
        frame: Delivered<Option<L>, R>,
    ) -> Delivered<Option<L>, R> {
        state.queued_bytes = state
            .queued_bytes
            .checked_sub(frame.payload.len())
            .expect("a lane's memory holds what was put into it");
        self.shared
            .deliver(self.stream, frame.sequence, frame.items);
        frame
    }
}
