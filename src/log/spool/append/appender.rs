//! Appends to the log: one segment after the other, group by group.
//!
//! Invariant: a segment is closed for good before the header of the next one, which states its
//! end, can reach the disk. So no byte of an accepted record lies after a stated end, and no
//! byte of a failed group before it. Knows nothing of the senders that wait for an answer.

pub(crate) mod begin;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::segment::ActiveSegment;
use crate::log::record::AppendError;
use crate::log::spool::catalog::Position;
use crate::log::spool::format::{
    Counts, FRAME_HEADER_BYTES, FrameHeader, NUMBER_MAX, Predecessor, to_usize,
};
use crate::log::spool::shared::Shared;

/// The write end of the log.
#[derive(Debug)]
pub(crate) struct Appender {
    shared: Arc<Shared>,
    active: Option<ActiveSegment>,
    /// The segment before the next one, unless that is the active one.
    closed: Option<Closed>,
    next_number: u64,
    next_sequence: u64,
    /// Sequences to skip when the next segment begins: failed attempts have used them in file
    /// names.
    skipped_sequences: u64,
    /// Items of each stream, staged records included.
    counts: Counts,
    /// The same without the staged records.
    durable_counts: Counts,
    /// The staged records, as they will be on disk.
    buffer: Vec<u8>,
    staged: Vec<Staged>,
    /// Bytes written since the last check of free space.
    unasked_bytes: u64,
    /// No segment is begun before this.
    retry_at: Option<Instant>,
    pub(crate) retry_pause: Duration,
    full: bool,
    /// The free-space check fails, and that was logged.
    blind: bool,
}

/// A record that is encoded for its group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staged {
    pub(crate) at: Position,
    pub(crate) stream: usize,
    pub(crate) items: u32,
}

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub(crate) predecessor: Predecessor,
    /// Bytes after its end are not all zero.
    pub(crate) has_discarded_tail: bool,
}

/// Where the log continues after a restart.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) closed: Option<Closed>,
    pub(crate) next_number: u64,
    pub(crate) next_sequence: u64,
    pub(crate) counts: Counts,
}

/// Why a record cannot be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStaged {
    /// It does not fit into the active segment: write what is staged, then begin another.
    NeedsSegment,
    /// It is refused.
    AppendError(AppendError),
}

/// Bytes between two checks of free space: too many for the check to cost anything, and far
/// fewer than any sensible reserve.
const ASK_AFTER_BYTES: u64 = 16 << 20;

/// Pause before the next attempt on a disk that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Appender {
    pub(crate) fn new(shared: Arc<Shared>, resume: Resume) -> Self {
        Self {
            shared,
            active: None,
            closed: resume.closed,
            next_number: resume.next_number,
            next_sequence: resume.next_sequence,
            skipped_sequences: 0,
            counts: resume.counts,
            durable_counts: resume.counts,
            buffer: Vec::new(),
            staged: Vec::new(),
            unasked_bytes: 0,
            retry_at: None,
            retry_pause: RETRY_PAUSE,
            full: false,
            blind: false,
        }
    }

    /// Encodes a record for the next group.
    pub(crate) fn stage(
        &mut self,
        stream: u8,
        items: u32,
        payload: &[u8],
    ) -> Result<(), NotStaged> {
        let payload_bytes = u32::try_from(payload.len())
            .ok()
            .filter(|&bytes| bytes <= self.shared.settings.frame_bytes_max)
            .ok_or(NotStaged::AppendError(AppendError::TooLarge))?;
        if self.shared.usage.reserve_reached.load(Ordering::Relaxed) {
            return Err(NotStaged::AppendError(AppendError::NoSpace));
        }
        let active = self.active.as_ref().ok_or(NotStaged::NeedsSegment)?;
        let buffered = self.buffer.len() as u64;
        let overtaken = self.sequence_floor() >= self.next_sequence;
        let used_up = self.next_sequence > NUMBER_MAX;
        let frame_bytes = FRAME_HEADER_BYTES + u64::from(payload_bytes);
        if overtaken || used_up || active.free() < buffered + frame_bytes {
            return Err(NotStaged::NeedsSegment);
        }
        let at = Position {
            segment: active.number(),
            offset: active.end() + buffered,
            sequence: self.next_sequence,
        };
        let stream = usize::from(stream);
        let cumulative = self.counts[stream] + u64::from(items);
        if cumulative > NUMBER_MAX {
            return Err(NotStaged::AppendError(AppendError::Failed));
        }
        self.next_sequence += 1;
        self.counts[stream] = cumulative;
        let header = FrameHeader {
            payload_bytes,
            stream: u8::try_from(stream).expect("it was a u8"),
            items,
            group_back: u32::try_from(buffered).expect("settings keep groups below 4 GiB"),
            sequence: at.sequence,
            cumulative,
            payload_crc: crc32c::crc32c(payload),
        };
        self.buffer.reserve(to_usize(frame_bytes));
        header.encode(active.seed(), at.offset, &mut self.buffer);
        self.buffer.extend_from_slice(payload);
        self.staged.push(Staged { at, stream, items });
        Ok(())
    }

    /// Makes the staged records durable: one write, one sync, all or nothing. Returns them in
    /// the order of staging.
    pub(crate) fn write(&mut self) -> Result<Vec<Staged>, AppendError> {
        let staged = std::mem::take(&mut self.staged);
        assert!(
            staged.is_empty() || self.active.is_some(),
            "the segment of staged records is gone"
        );
        let Some(active) = self.active.as_mut().filter(|_| !staged.is_empty()) else {
            return Ok(staged);
        };
        let done = active.append(&self.buffer);
        let (number, end, free) = (active.number(), active.end(), active.free());
        self.unasked_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        // Releases the memory of an unusually large group.
        self.buffer.shrink_to(self.shared.settings.group_bytes_max);
        if let Err(error) = done {
            self.fail_segment(&error);
            return Err(AppendError::Failed);
        }
        self.durable_counts = self.counts;
        let mut catalog = self.shared.catalog();
        let segment = catalog
            .get_mut(number)
            .expect("the active segment is the newest, which is never removed");
        segment.end = end;
        for frame in &staged {
            let portion = &mut segment.streams[frame.stream];
            assert!(
                portion.last < frame.at.sequence,
                "the sequences of a segment's records do not grow"
            );
            portion.last = frame.at.sequence;
            portion.frames += 1;
            portion.items += u64::from(frame.items);
        }
        drop(catalog);
        let usage = &self.shared.usage;
        usage.active_free.store(free, Ordering::Relaxed);
        for frame in &staged {
            usage.accepted[frame.stream].store(self.counts[frame.stream], Ordering::Relaxed);
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

    /// Maintenance between groups: checks that the files are in place and that there is space,
    /// and tries to recover from a failure.
    pub(crate) fn tick(&mut self) {
        if !self.is_in_place() {
            return;
        }
        if self.shared.usage.reserve_reached.load(Ordering::Relaxed) {
            self.shared.recycled.clear(self.shared.disk.as_ref());
        }
        self.look_for_space();
        let usage = &self.shared.usage;
        let failing = [&usage.failed, &usage.no_space];
        if failing.iter().any(|flag| flag.load(Ordering::Relaxed))
            && let Err(refused @ (AppendError::AtCap | AppendError::NoSpace)) = self.begin(0)
        {
            // Whether the disk works shows once there is room.
            self.note_full(refused);
        }
    }

    /// Checks that the log's files are still at their paths. Returns `false` if the directory
    /// is not: then the log is closed for good, and nothing more is accepted. If only the
    /// active segment's file is missing, that segment fails, and the next record goes to a new
    /// one.
    fn is_in_place(&mut self) -> bool {
        if !self.shared.is_in_place() {
            self.close(true);
            return false;
        }
        let look = |active: &ActiveSegment| active.is_in_place(self.shared.disk.as_ref());
        // A check that fails says nothing: the next write or the next check finds out.
        let active_is_there = self
            .active
            .as_ref()
            .is_none_or(|it| look(it).unwrap_or(true));
        if !active_is_there {
            let error = std::io::Error::other("its newest segment was removed or renamed");
            self.fail_segment(&error);
        }
        true
    }

    /// Checks that there is space for what comes next.
    pub(crate) fn look_for_space(&mut self) {
        let settings = &self.shared.settings;
        let full = self.shared.usage.reserve_reached.load(Ordering::Relaxed);
        // The active segment and a recycled segment have their space already.
        let has_space = self.active.is_some() || self.shared.recycled.has(settings.segment_bytes);
        let more = match has_space && !full {
            true => 0,
            false => settings.segment_bytes,
        };
        self.ask_for_space(more);
    }

    /// Logs once that records are refused, and why.
    pub(crate) fn note_full(&mut self, refused: AppendError) {
        if std::mem::replace(&mut self.full, true) {
            return;
        }
        // Lack of disk space is logged where it is found.
        if refused == AppendError::AtCap {
            warn!(
                bytes = self.shared.usage.bytes.load(Ordering::Relaxed),
                bytes_max = self.shared.settings.bytes_max,
                "the spool has reached --spool-bytes-max: events are refused until some are stored in the database"
            );
        }
    }

    /// Fails the active segment after a write or sync error: it ends after the last group that
    /// succeeded.
    fn fail_segment(&mut self, error: &std::io::Error) {
        self.counts = self.durable_counts;
        if let Some(active) = &self.active
            && let Some(segment) = self.shared.catalog().get_mut(active.number())
        {
            segment.reusable = false;
        }
        self.close(true);
        self.failed("cannot write to the spool", error);
    }

    /// Closes the active segment, for good.
    fn close(&mut self, has_discarded_tail: bool) {
        if let Some(active) = self.active.take() {
            let predecessor = Predecessor {
                number: active.number(),
                end: active.end(),
                whole: true,
            };
            self.closed = Some(Closed {
                predecessor,
                has_discarded_tail,
            });
            self.shared.usage.active_free.store(0, Ordering::Relaxed);
        }
    }

    /// Logs once that the disk fails.
    fn failed(&self, doing: &'static str, error: &std::io::Error) {
        if !self.shared.usage.failed.swap(true, Ordering::Relaxed) {
            error!(%error, "{doing}: events are refused until a fresh segment can be begun");
        }
    }

    fn sequence_floor(&self) -> u64 {
        self.shared.sequence_floor.load(Ordering::Relaxed)
    }
}
