//! The findings of a scan, and their log lines.

use tracing::{error, info, warn};
use uuid::Uuid;

use crate::log::spool::format::{Counts, HeaderError, STREAMS_MAX, SegmentHeader};
use crate::log::spool::portion::Portion;

/// The content of a spool's directory.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// The spool id; `None` in a directory that was never used.
    pub spool_id: Option<Uuid>,
    /// The segments, in the order in which they were created.
    pub segments: Vec<SegmentReport>,
    /// Files with a segment's name that cannot be used as one.
    pub unreadable: Vec<Unreadable>,
    /// Files that are not yet, or no longer, segments.
    pub leftovers: Vec<String>,
    /// No segment was ever begun under this spool id; false where that is not known.
    pub(crate) is_unused: bool,
    /// No record in a file without a readable header has a higher sequence.
    pub(crate) last_sequence_at_most: u64,
    /// Where items are missing between segments, or before the first one.
    pub(crate) gaps: Vec<Gap>,
}

/// Items that were accepted before a segment was created, and that no earlier segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The segment before the gap; `None` if there is none.
    pub(crate) after: Option<String>,
    /// The segment after the gap.
    pub(crate) before: String,
    /// All missing records have lower sequences.
    pub(crate) next_sequence: u64,
    /// Missing items, by stream.
    pub(crate) items: Counts,
}

/// The content of a segment.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// Sound records.
    pub frames: u64,
    /// Where the last of them ends.
    pub end: u64,
    /// What follows there.
    pub ending: Ending,
    /// Ranges without a sound record that were synced, or have a sound record after them.
    pub damage: Vec<Damage>,
    /// Items of each stream that were accepted and are lost, as far as later records show.
    pub lost_items: Counts,
    /// One of the two copies of the header is damaged.
    pub header_copy_damaged: bool,
    pub(crate) header: SegmentHeader,
    pub(crate) streams: [Portion; STREAMS_MAX],
    /// Items of each stream under this spool id, at the end of this segment.
    pub(crate) counts: Counts,
    pub(crate) last_sequence: u64,
    /// Bytes from `end` to the last byte that is not zero.
    pub(crate) tail_bytes: u64,
    /// The segment before, if this one must not be deleted first.
    pub(crate) guards: Option<u64>,
}

/// What follows the last sound record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Zeros, or the end of the file.
    Clean,
    /// A write that a power loss has torn, or a corrupt last record: the two look the same.
    Torn,
    /// The same, or bytes of the segment that the file held before.
    Stale,
    /// The discarded tail: bytes of a write or sync that failed, or that an earlier start
    /// discarded.
    Discarded,
    /// The file ends, or is corrupt, before the offset up to which it was synced.
    Missing,
}

/// Bytes of a segment that hold no sound record and should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins in the segment.
    pub offset: u64,
    pub bytes: u64,
    pub kind: DamageKind,
}

/// The cause of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Torn: a hole in the last group, as a power loss leaves it. Most likely its records were
    /// never answered `Ok`.
    Torn,
    /// Corrupt: the bytes were synced and have changed since.
    Corrupt,
}

/// A file with a segment's name that cannot be used: its header is not valid, so its records are
/// lost, or another file holds the same segment.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// Why it cannot be used.
    pub reason: HeaderError,
}

impl ScanReport {
    /// Whether segments were begun here and are gone, all of them: a spool keeps its newest one, even an
    /// empty one.
    pub(crate) fn has_lost_its_segments(&self) -> bool {
        self.spool_id.is_some() && self.segments.is_empty() && !self.is_unused
    }

    /// Sound records.
    pub fn frames(&self) -> u64 {
        self.segments.iter().map(|segment| segment.frames).sum()
    }

    /// Whether bytes that were synced are corrupt, or a file cannot be used.
    pub fn is_damaged(&self) -> bool {
        let corrupt = |damage: &Damage| damage.kind == DamageKind::Corrupt;
        !self.unreadable.is_empty()
            || self
                .segments
                .iter()
                .any(|segment| segment.damage.iter().any(corrupt))
    }

    /// Logs the findings, at error level where a person should act.
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
                records = self.frames(),
                "found records in the spool; the ledger tells which of them are still to be stored"
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
                DamageKind::Corrupt => {
                    error!(segment = %name, offset, bytes, "a spool segment is damaged where it had been synced; the records around the damage are delivered");
                }
                DamageKind::Torn => {
                    warn!(segment = %name, offset, bytes, "a write to the spool was torn; the records around it are delivered");
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
            warn!(segment = %name, end = self.end, bytes = self.tail_bytes, "a spool segment ends in a torn write, which is cut off");
        }
    }
}
