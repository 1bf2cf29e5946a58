//! The log as it is written: one segment after the other, group by group.
//!
//! Keeps one invariant: a segment is closed for good before the next one's
//! header, which states its end, can reach the disk. So no byte that was promised lies
//! behind a stated end, and no byte of a failed group before it.
//! Knows nothing of who waits for an answer.

mod begin;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::Refused;
use super::catalog::Position;
use super::format::{Counts, FRAME_HEADER_BYTES, FrameHeader, Predecessor, to_usize};
use super::segment::ActiveSegment;
use super::shared::Shared;

/// The end of the log.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    active: Option<ActiveSegment>,
    /// The segment before the next one to be begun, unless that is the active one.
    closed: Option<Closed>,
    next_number: u64,
    next_sequence: u64,
    /// Sequences left out at the next beginning: names that attempts used up.
    burnt: u64,
    /// Items of each stream, those staged included.
    counts: Counts,
    /// The same without those staged.
    durable_counts: Counts,
    /// Staged frames, as they will be on disk.
    buffer: Vec<u8>,
    staged: Vec<Staged>,
    /// Bytes written since free space was last asked for.
    unasked_bytes: u64,
    /// Nobody tries to begin a segment before this.
    retry_at: Option<Instant>,
    pub(super) retry_pause: Duration,
    full: bool,
}

/// A frame that is encoded and will be, or was, written with its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    pub(super) at: Position,
    pub(super) stream: usize,
    pub(super) items: u32,
}

/// A segment that will not be written to again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) predecessor: Predecessor,
    /// There are bytes behind its end that are no zeros.
    pub(super) has_void: bool,
}

/// Where a log goes on after a restart.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) closed: Option<Closed>,
    pub(super) next_number: u64,
    pub(super) next_sequence: u64,
    pub(super) counts: Counts,
}

/// Why a frame cannot be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotStaged {
    /// It does not fit into the segment: write what is staged, begin another.
    NeedsSegment,
    /// It cannot be taken.
    Refused(Refused),
}

/// Free space is asked for after so many bytes: seldom enough not to cost,
/// and far less than any sensible reserve.
const ASK_AFTER_BYTES: u64 = 16 << 20;

/// A disk that failed is given a moment.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Log {
    pub(super) fn new(shared: Arc<Shared>, resume: Resume) -> Self {
        Self {
            shared,
            active: None,
            closed: resume.closed,
            next_number: resume.next_number,
            next_sequence: resume.next_sequence,
            burnt: 0,
            counts: resume.counts,
            durable_counts: resume.counts,
            buffer: Vec::new(),
            staged: Vec::new(),
            unasked_bytes: 0,
            retry_at: None,
            retry_pause: RETRY_PAUSE,
            full: false,
        }
    }

    /// Encodes a frame for the group to come.
    pub(super) fn stage(
        &mut self,
        stream: u8,
        items: u32,
        payload: &[u8],
    ) -> Result<(), NotStaged> {
        let payload_bytes = u32::try_from(payload.len())
            .ok()
            .filter(|&bytes| bytes <= self.shared.settings.frame_bytes_max)
            .ok_or(NotStaged::Refused(Refused::TooLarge))?;
        if self.shared.gauges.reserve_reached.load(Ordering::Relaxed) {
            return Err(NotStaged::Refused(Refused::NoSpace));
        }
        let active = self.active.as_ref().ok_or(NotStaged::NeedsSegment)?;
        let buffered = self.buffer.len() as u64;
        let overtaken = self.sequence_floor() >= self.next_sequence;
        let frame_bytes = FRAME_HEADER_BYTES + u64::from(payload_bytes);
        if overtaken || active.free() < buffered + frame_bytes {
            return Err(NotStaged::NeedsSegment);
        }
        let at = Position {
            segment: active.number(),
            offset: active.end() + buffered,
            sequence: self.next_sequence,
        };
        let stream = usize::from(stream);
        self.next_sequence += 1;
        self.counts[stream] += u64::from(items);
        let header = FrameHeader {
            payload_bytes,
            stream: u8::try_from(stream).expect("it was a u8"),
            items,
            group_back: u32::try_from(buffered).expect("settings keep groups below 4 GiB"),
            sequence: at.sequence,
            cumulative: self.counts[stream],
            payload_crc: crc32c::crc32c(payload),
        };
        self.buffer.reserve(to_usize(frame_bytes));
        header.encode(active.seed(), at.offset, &mut self.buffer);
        self.buffer.extend_from_slice(payload);
        self.staged.push(Staged { at, stream, items });
        Ok(())
    }

    /// Makes what is staged durable: one write, one sync, all or nothing.
    /// Hands out the frames in the order in which they were staged.
    pub(super) fn write(&mut self) -> Result<Vec<Staged>, Refused> {
        let staged = std::mem::take(&mut self.staged);
        let Some(active) = self.active.as_mut().filter(|_| !staged.is_empty()) else {
            return Ok(staged);
        };
        let done = active.append(&self.buffer);
        let (number, end, free) = (active.number(), active.end(), active.free());
        self.unasked_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        // One huge group is no reason to keep its memory.
        self.buffer.shrink_to(self.shared.settings.group_bytes_max);
        if let Err(error) = done {
            self.poisoned(&error);
            return Err(Refused::Failed);
        }
        self.durable_counts = self.counts;
        let mut catalog = self.shared.catalog();
        let segment = catalog
            .get_mut(number)
            .expect("the active segment is the newest, which is never removed");
        segment.end = end;
        for frame in &staged {
            let portion = &mut segment.streams[frame.stream];
            portion.last = frame.at.sequence;
            portion.frames += 1;
            portion.items += u64::from(frame.items);
        }
        drop(catalog);
        let gauges = &self.shared.gauges;
        gauges.active_free.store(free, Ordering::Relaxed);
        for frame in &staged {
            gauges.accepted[frame.stream].store(self.counts[frame.stream], Ordering::Relaxed);
        }
        if self.full {
            self.full = false;
            info!("the spool has room again");
        }
        if self.unasked_bytes >= ASK_AFTER_BYTES {
            self.ask_for_space(0);
        }
        Ok(staged)
    }

    /// Looks after the log while nothing has to be written: tries to come back
    /// from a failure, and sees whether there is space again.
    pub(super) fn tick(&mut self) {
        let gauges = &self.shared.gauges;
        if gauges.reserve_reached.load(Ordering::Relaxed) {
            self.shared.spares.clear(self.shared.disk.as_ref());
            self.ask_for_space(self.shared.settings.segment_bytes);
        }
        if self.shared.gauges.failed.load(Ordering::Relaxed)
            && let Err(refused @ (Refused::Full | Refused::NoSpace)) = self.begin(0)
        {
            // Whether the disk works will show when there is room.
            self.now_full(refused);
        }
    }

    /// Says once that frames are being refused, and why.
    pub(super) fn now_full(&mut self, refused: Refused) {
        if std::mem::replace(&mut self.full, true) {
            return;
        }
        let bytes = self.shared.gauges.bytes.load(Ordering::Relaxed);
        let settings = &self.shared.settings;
        match refused {
            Refused::NoSpace => warn!(
                bytes,
                disk_reserve_bytes = settings.disk_reserve_bytes,
                "the spool's disk has no free space beyond its reserve: events are refused until there is some"
            ),
            _ => warn!(
                bytes,
                bytes_max = settings.bytes_max,
                "the spool is at its cap: events are refused until some are stored in the database"
            ),
        }
    }

    /// A write or a sync failed: the segment ends where the group before ended.
    fn poisoned(&mut self, error: &std::io::Error) {
        self.counts = self.durable_counts;
        if let Some(active) = &self.active
            && let Some(segment) = self.shared.catalog().get_mut(active.number())
        {
            segment.reusable = false;
        }
        self.close(true);
        self.failed("cannot write to the spool", error);
    }

    /// Ends the active segment, for good.
    fn close(&mut self, has_void: bool) {
        if let Some(active) = self.active.take() {
            let predecessor = Predecessor {
                number: active.number(),
                end: active.end(),
                whole: true,
            };
            self.closed = Some(Closed {
                predecessor,
                has_void,
            });
            self.shared.gauges.active_free.store(0, Ordering::Relaxed);
        }
    }

    /// Says once that the disk fails.
    fn failed(&self, doing: &'static str, error: &std::io::Error) {
        if !self.shared.gauges.failed.swap(true, Ordering::Relaxed) {
            error!(%error, "{doing}: events are refused until a fresh segment can be begun");
        }
    }

    fn sequence_floor(&self) -> u64 {
        self.shared.sequence_floor.load(Ordering::Relaxed)
    }
}
