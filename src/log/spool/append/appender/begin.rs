//! Begins a segment: room, file, header.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{info, warn};

use super::Appender;
use crate::log::record::AppendError;
use crate::log::spool::append::recycled;
use crate::log::spool::append::recycled::leftover_name;
use crate::log::spool::append::segment::{ActiveSegment, RecycledSegment};
use crate::log::spool::catalog::Segment;
use crate::log::spool::disk::space::Shortage;
use crate::log::spool::format::{
    FRAMES_START, NUMBER_MAX, STREAMS_MAX, SegmentHeader, segment_name,
};
use crate::log::spool::portion::Portion;
use crate::log::spool::shared::Shared;
use crate::log::spool::spool_id;

impl Appender {
    /// Begins a segment with room for a frame of `frame_bytes`. Nothing may be staged. If there
    /// is no room for a segment, the one before stays open for records that fit into it.
    pub(crate) fn begin(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        assert!(
            self.staged.is_empty(),
            "a segment would end before the records that are staged for it"
        );
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(AppendError::Failed);
        }
        if !self.is_in_place() {
            return Err(AppendError::Gone);
        }
        let segment_bytes = self.shared.settings.segment_bytes;
        let bytes = segment_bytes.max(FRAMES_START + frame_bytes);
        self.make_room(bytes)?;
        self.retry_at = None;
        let number = self.next_number;
        // An empty segment has used its first sequence for its name only: skip it.
        if self.active.as_ref().is_some_and(ActiveSegment::is_empty) {
            self.skipped_sequences = self.skipped_sequences.max(1);
        }
        let first_sequence =
            (self.next_sequence + self.skipped_sequences).max(self.sequence_floor() + 1);
        if number > NUMBER_MAX || first_sequence > NUMBER_MAX {
            let error = io::Error::other(
                "its numbers have run out; once everything is stored, start with an empty directory",
            );
            return Err(self.cannot_begin(&error));
        }
        let name = segment_name(first_sequence);
        // Even if this attempt fails, its number and name are not used again.
        self.next_number += 1;
        self.skipped_sequences += 1;
        let taken = self.shared.recycled.take(self.shared.disk.as_ref(), bytes);
        let recycled = taken.is_some();
        let file = match taken.map_or_else(|| self.fresh(&name, bytes), Ok) {
            Ok(file) => file,
            Err(error) if no_space(&error) => {
                if !self.shared.usage.no_space.swap(true, Ordering::Relaxed) {
                    warn!(%error, bytes, "cannot set disk space aside for the spool: events are refused until there is some");
                }
                return Err(AppendError::NoSpace);
            }
            Err(error) => return Err(self.cannot_begin(&error)),
        };
        let file_name = file.name.clone();
        // From here on the new header may reach the disk, so the old segment ends.
        self.close(false);
        let header = SegmentHeader {
            spool_id: self.shared.spool_id,
            number,
            first_sequence,
            predecessor: self.closed.map(|closed| closed.predecessor),
            counts: self.durable_counts,
            recycled,
        };
        let disk = self.shared.disk.as_ref();
        let marked = match self.closed {
            Some(_) => Ok(()),
            // The first segment: from here on a directory without one has lost it.
            None => spool_id::mark_used(disk),
        };
        let begun = marked.and_then(|()| ActiveSegment::begin(disk, file, &name, &header, bytes));
        let active = match begun {
            Ok(active) => active,
            Err(error) => {
                // It holds no record; leaving it would do no harm either.
                for name in [&file_name, &name] {
                    recycled::remove(disk, name);
                }
                return Err(self.cannot_begin(&error));
            }
        };
        self.next_sequence = first_sequence;
        self.skipped_sequences = 0;
        let segment = Segment {
            name,
            seed: active.seed(),
            bytes,
            end: active.end(),
            streams: [Portion::default(); STREAMS_MAX],
            gaps: Vec::new(),
            guards: self
                .closed
                .filter(|closed| closed.has_discarded_tail)
                .map(|closed| closed.predecessor.number),
            reusable: true,
        };
        let mut catalog = self.shared.catalog();
        catalog.insert(number, segment);
        self.shared.publish(&catalog);
        drop(catalog);
        let usage = &self.shared.usage;
        usage.active_free.store(active.free(), Ordering::Relaxed);
        if usage.failed.swap(false, Ordering::Relaxed) {
            info!("the spool can write again");
        }
        if usage.no_space.swap(false, Ordering::Relaxed) {
            info!("there is disk space for the spool again");
        }
        self.active = Some(active);
        Ok(())
    }

    /// Creates a file, with a name that a start removes.
    fn fresh(&self, name: &str, bytes: u64) -> io::Result<RecycledSegment> {
        let name = leftover_name(name);
        let file = self.shared.disk.create(&name, bytes)?;
        Ok(RecycledSegment { file, name })
    }

    /// Checks that a file of `bytes` may be created.
    fn make_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let fits = |log: &Self| {
            let used = log.shared.usage.bytes.load(Ordering::Relaxed);
            used.saturating_add(bytes) <= log.shared.settings.bytes_max
        };
        if !fits(self) && (self.shared.reclaim(true) == 0 || !fits(self)) {
            return Err(AppendError::AtCap);
        }
        // A recycled segment has its space already.
        let more = match self.shared.recycled.has(bytes) {
            true => 0,
            false => bytes,
        };
        match self.ask_for_space(more) {
            true => Ok(()),
            false => Err(AppendError::NoSpace),
        }
    }

    /// Checks that the file system keeps its reserve after `bytes` more, and publishes the
    /// result as usage.
    pub(crate) fn ask_for_space(&mut self, bytes: u64) -> bool {
        self.unasked_bytes = 0;
        let Shared {
            settings,
            usage,
            disk,
            ..
        } = &*self.shared;
        let free = match disk.free_bytes() {
            Ok(free) => {
                self.blind = false;
                free
            }
            Err(error) => {
                // Lack of space then shows at the next write.
                if !std::mem::replace(&mut self.blind, true) {
                    warn!(%error, "cannot find out how much disk space is free");
                }
                u64::MAX
            }
        };
        let enough = free >= settings.disk_reserve_bytes.saturating_add(bytes);
        usage.free_bytes.store(free, Ordering::Relaxed);
        match (
            usage.reserve_reached.swap(!enough, Ordering::Relaxed),
            enough,
        ) {
            (false, false) => warn!("events are refused: {}", Shortage::new(free, settings)),
            (true, true) => info!("there is enough disk space for the spool again"),
            (false, true) | (true, false) => {}
        }
        enough
    }

    fn cannot_begin(&mut self, error: &io::Error) -> AppendError {
        self.retry_at = Some(Instant::now() + self.retry_pause);
        self.failed("cannot begin a spool segment", error);
        AppendError::Failed
    }
}

fn no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
