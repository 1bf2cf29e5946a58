//! The writer's end of a lane: frames of one stream, in order, each once.
//!
//! Knows when to take them from memory and when from disk; does not know what
//! they are, nor on which thread it runs. Reading from disk blocks, and is a
//! call of its own for that reason.

pub(crate) mod cursor;

pub(crate) mod behind;
pub(crate) mod found;

use std::sync::Arc;

use super::lane::{Lane, LaneState};
use crate::log::record::Delivered;
use crate::log::spool::format::NUMBER_MAX;
use crate::log::spool::shared::Shared;
use cursor::Cursor;
use found::Found;

/// The one reader of a lane.
#[derive(Debug)]
pub struct LaneReader<L, R> {
    stream: usize,
    shared: Arc<Shared>,
    lane: Arc<Lane<R>>,
    frames: flume::Receiver<Delivered<Option<L>, R>>,
    /// What [`LaneReader::wait`] took from memory.
    peeked: Option<Delivered<Option<L>, R>>,
    /// Where the reader is on disk while the lane is behind.
    cursor: Option<Cursor>,
    /// Frames up to here are settled already, and are passed over.
    skip: u64,
    /// What the start found of this stream.
    found: Found,
}

/// What a lane has for its writer.
#[derive(Debug)]
pub enum Next<L, R> {
    /// A frame from memory.
    Frame(Delivered<Option<L>, R>),
    /// The next frames are on disk: call [`LaneReader::read_behind`].
    Behind,
    /// Nothing yet: [`LaneReader::wait`].
    Empty,
    /// Nothing any more: intake has ended and every frame was given.
    Ended,
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

    /// The stream whose frames these are.
    pub fn stream(&self) -> u8 {
        u8::try_from(self.stream).expect("there are fewer than 256 streams")
    }

    /// The next frame, or where it will come from. Never blocks.
    pub fn try_next(&mut self) -> Next<L, R> {
        let lane = Arc::clone(&self.lane);
        let mut state = lane.lock();
        if let Some(frame) = self.peeked.take() {
            return Next::Frame(self.give(&mut state, frame));
        }
        // Under the lane's lock nothing enters memory between these two looks:
        // when it is empty and the lane is behind, it stays empty.
        match self.frames.try_recv() {
            Ok(frame) => Next::Frame(self.give(&mut state, frame)),
            Err(_) if state.lag.behind_from().is_some() => Next::Behind,
            Err(flume::TryRecvError::Empty) => Next::Empty,
            Err(flume::TryRecvError::Disconnected) => Next::Ended,
        }
    }

    /// Waits until [`LaneReader::try_next`] has something else to say than
    /// [`Next::Empty`]. May be dropped at any time; nothing is lost.
    pub async fn wait(&mut self) {
        if self.peeked.is_some() || self.is_behind() {
            return;
        }
        // A lane falls behind only while something is in its memory, so this
        // wakes for that as well. An error is the end, and told by `try_next`.
        if let Ok(frame) = self.frames.recv_async().await {
            self.peeked = Some(frame);
        }
    }

    /// Whether the next frames, after those in memory, are on disk.
    pub fn is_behind(&self) -> bool {
        self.lane.lock().lag.behind_from().is_some()
    }

    /// At start: all frames up to and including `sequence` are settled. They are
    /// passed over and count as retired.
    ///
    /// Only frames of earlier lives are passed over: of a watermark that is
    /// ahead of all that this directory ever held nothing is believed, and
    /// `false` is returned.
    pub fn skip_to(&mut self, sequence: u64) -> bool {
        let known = sequence <= self.shared.found_last;
        if known {
            self.skip = self.skip.max(sequence);
        }
        known
    }

    /// At start: the database has a watermark that another copy of this spool
    /// has set. New frames get sequences beyond it; what was found is given, and
    /// the key makes harmless what of it is stored already.
    pub fn number_beyond(&mut self, watermark: u64) {
        tracing::error!(
            stream = self.stream,
            watermark,
            last = self.shared.found_last,
            "the database remembers frames that this spool never had; was the spool directory \
             replaced by an older copy, or did another copy go on? What is in it is looked up \
             and stored where it is missing, nothing is skipped"
        );
        // Nothing depends on it, so a number that would soon use up all
        // sequences is not followed.
        if watermark < NUMBER_MAX / 2 {
            self.shared
                .sequence_floor
                .fetch_max(watermark, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Takes no more frames: they stay in the spool, and who waits for one
    /// learns at once that there will be no result. Ends when intake does.
    pub async fn abandon(mut self) {
        self.lane.lock().abandon();
        self.peeked = None;
        // Those that are in memory already are dropped here.
        while self.frames.recv_async().await.is_ok() {}
    }

    /// At start, after [`LaneReader::skip_to`] and before anything is read:
    /// Postgres remembers that `settled_items` of the stream are settled, in all
    /// lives. As soon as the reader has passed over the frames that are settled,
    /// it is known what is lost.
    pub fn reconcile(&mut self, settled_items: u64) {
        self.found.settled = Some(settled_items);
        if !self.is_behind() {
            self.reckon();
        }
    }

    /// Counts what is lost, once everything settled was passed over.
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
        state.queued_bytes -= frame.payload.len();
        self.shared
            .deliver(self.stream, frame.sequence, frame.items);
        frame
    }
}
