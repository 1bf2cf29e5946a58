//! What a scan found, in words and in numbers.

use tracing::{error, info, warn};
use uuid::Uuid;

use crate::log::spool::format::{Counts, HeaderError, STREAMS_MAX, SegmentHeader};
use crate::log::spool::portion::Portion;

/// What is in a spool's directory.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// Whose segments they are; none in a directory that was never used.
    pub instance: Option<Uuid>,
    /// The segments, in the order in which they were begun.
    pub segments: Vec<SegmentReport>,
    /// Files with a segment's name that cannot be taken for one.
    pub unreadable: Vec<Unreadable>,
    /// Files that are not yet, or no longer, segments.
    pub leftovers: Vec<String>,
    /// No frame of a file without a readable header has a later sequence.
    pub(crate) last_sequence_at_most: u64,
    /// Where items are missing between segments, or before the first one.
    pub(crate) gaps: Vec<Gap>,
}

/// Items that were accepted before a segment was begun, and that no earlier
/// segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The segment before; none if there is none.
    pub(crate) after: Option<String>,
    /// The segment behind.
    pub(crate) before: String,
    /// All missing frames have earlier sequences.
    pub(crate) next_sequence: u64,
    /// Missing items, by stream.
    pub(crate) items: Counts,
}

/// What is in a segment.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Its file.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Frames that are sound.
    pub frames: u64,
    /// Where the last of them ends.
    pub end: u64,
    /// What follows there.
    pub ending: Ending,
    /// Ranges that hold no sound frame, with something sound, or promised, behind them.
    pub damage: Vec<Damage>,
    /// Items of each stream that had been accepted and are lost, as far as
    /// later frames tell.
    pub lost_items: Counts,
    /// One of the two copies of the header is damaged.
    pub header_copy_damaged: bool,
    pub(crate) header: SegmentHeader,
    pub(crate) streams: [Portion; STREAMS_MAX],
    /// Items of each stream since the instance was born, at the end of this segment.
    pub(crate) counts: Counts,
    pub(crate) last_sequence: u64,
    /// Bytes behind `end` that are not zero.
    pub(crate) void_bytes: u64,
    /// The segment before, if this one must not be deleted before it.
    pub(crate) guards: Option<u64>,
}

/// What follows the last sound frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Zeros, or the end of the file.
    Clean,
    /// Bytes of frames that were being written when the power failed, or a
    /// last frame that is damaged: from here the two look the same.
    Torn,
    /// The same, or bytes of a segment that the file held before.
    Stale,
    /// Bytes whose write or sync had failed; their senders were told so.
    Void,
    /// The file ends, or turns bad, before the place up to which it was synced.
    Missing,
}

/// Bytes of a segment that hold no sound frame and should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins in the segment.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What it is.
    pub kind: DamageKind,
}

/// What damage means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// A hole in the last group, as a power cut leaves it. Most likely nobody
    /// had been told that these frames were durable.
    Torn,
    /// It had been synced, and is gone.
    Rotten,
}

/// A file with a segment's name and no header that can be believed. Its frames
/// are lost with it.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its file.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is wrong.
    pub reason: HeaderError,
}

impl ScanReport {
    /// Frames that are sound.
    pub fn frames(&self) -> u64 {
        self.segments.iter().map(|segment| segment.frames).sum()
    }

    /// Whether something that had been synced is gone.
    pub fn is_damaged(&self) -> bool {
        let rotten = |damage: &Damage| damage.kind == DamageKind::Rotten;
        !self.unreadable.is_empty()
            || self
                .segments
                .iter()
                .any(|segment| segment.damage.iter().any(rotten))
    }

    /// Says it, loudly where a person should act.
    pub fn log(&self) {
        for Unreadable {
            name,
            bytes,
            reason,
            ..
        } in &self.unreadable
        {
            error!(segment = %name, bytes, %reason, "a spool segment cannot be read; its events are not delivered, the file is kept and set aside as {name}.damaged");
        }
        for segment in &self.segments {
            segment.log();
        }
        if self.frames() > 0 {
            info!(
                segments = self.segments.len(),
                frames = self.frames(),
                "found frames in the spool; the ledger tells which of them are still to be stored"
            );
        }
    }
}

impl SegmentReport {
    pub(crate) fn log(&self) {
        let name = &self.name;
        if self.header_copy_damaged {
            warn!(segment = %name, "one copy of a spool segment's header is damaged, the other one is used");
        }
        for &Damage {
            offset,
            bytes,
            kind,
        } in &self.damage
        {
            match kind {
                DamageKind::Rotten => {
                    error!(segment = %name, offset, bytes, "a spool segment is damaged where it had been synced; the frames around the damage are delivered");
                }
                DamageKind::Torn => {
                    warn!(segment = %name, offset, bytes, "a write to the spool was torn; the frames around it are delivered");
                }
            }
        }
        let lost = self
            .lost_items
            .iter()
            .fold(0, |sum: u64, &items| sum.saturating_add(items));
        if lost > 0 {
            error!(segment = %name, missing = lost, "events that had been accepted are missing from a spool segment; those that were not stored yet are lost");
        }
        if self.ending == Ending::Torn {
            warn!(segment = %name, end = self.end, bytes = self.void_bytes, "a spool segment ends in a torn write, which is cut off");
        }
    }
}
