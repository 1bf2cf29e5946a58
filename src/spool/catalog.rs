//! The segments on disk: what they hold, and which can go.
//!
//! Keeps one invariant: whatever lies before a segment's `end` is synced, and
//! nothing behind it is ever read. Does no IO.

use std::collections::BTreeMap;

use super::format::{Counts, FRAMES_START, Predecessor, STREAMS_MAX, Seed};
use super::scan::report::SegmentReport;
use super::scan::segment::Portion;

/// A segment file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) seed: Seed,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Where its frames end.
    pub(super) end: u64,
    pub(super) streams: [Portion; STREAMS_MAX],
    /// Damaged ranges, as offset and the offset behind.
    pub(super) gaps: Vec<(u64, u64)>,
    /// The segment whose end this one states, if it must outlive it.
    pub(super) guards: Option<u64>,
    /// Made in this life, and no write or sync to it has failed: what the disk
    /// holds of it is known, so the file can be used again.
    pub(super) reusable: bool,
}

/// A segment that nobody needs any more.
#[derive(Clone, Debug)]
pub(super) struct Spent {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) reusable: bool,
}

/// All segments, by number.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    segments: BTreeMap<u64, Segment>,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Of the frame there.
    pub(super) sequence: u64,
}

impl Segment {
    pub(super) fn found(report: &SegmentReport) -> Self {
        Self {
            name: report.name.clone(),
            seed: report.header.seed(),
            bytes: report.bytes,
            end: report.end,
            streams: report.streams,
            gaps: gaps(report),
            guards: report.guards,
            reusable: false,
        }
    }

    /// What another scan of the segment found replaces what we thought.
    pub(super) fn correct(&mut self, report: &SegmentReport) {
        self.streams = report.streams;
        self.gaps = gaps(report);
    }

    /// Whether `offset` is damaged, and where the damage ends.
    pub(super) fn gap_end(&self, offset: u64) -> Option<u64> {
        let gap = self
            .gaps
            .iter()
            .find(|&&(from, to)| (from..to).contains(&offset))?;
        Some(gap.1)
    }

    /// What a later segment would state of this one.
    pub(super) fn as_predecessor(&self, number: u64) -> Predecessor {
        Predecessor {
            number,
            end: self.end,
            whole: true,
        }
    }
}

impl Catalog {
    pub(super) fn insert(&mut self, number: u64, segment: Segment) {
        self.segments.insert(number, segment);
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.get_mut(&number)
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// The first segment, from number `from` on, that holds a frame of `stream`
    /// later than `sequence`.
    pub(super) fn next_with(
        &self,
        stream: usize,
        from: u64,
        sequence: u64,
    ) -> Option<(u64, &Segment)> {
        self.segments
            .range(from..)
            .find(|(_, segment)| segment.streams[stream].last > sequence)
            .map(|(&number, segment)| (number, segment))
    }

    /// Where a stream's frames begin, and its last sequence; `None`: there are none.
    pub(super) fn backlog(&self, stream: usize) -> Option<(Position, u64)> {
        let (number, _) = self.next_with(stream, 0, 0)?;
        let from = Position {
            segment: number,
            offset: FRAMES_START,
            sequence: 1,
        };
        let last = self
            .segments
            .values()
            .map(|segment| segment.streams[stream].last)
            .max()?;
        Some((from, last))
    }

    /// Segments that nobody needs any more: every frame is retired, the bytes
    /// of no older segment depend on them, and a newer one carries the counts on.
    pub(super) fn spent(&self, retired: &Counts) -> Vec<Spent> {
        let Some((&newest, _)) = self.segments.last_key_value() else {
            return Vec::new();
        };
        self.segments
            .iter()
            .filter(|&(&number, segment)| {
                let guarding = segment
                    .guards
                    .is_some_and(|older| self.segments.contains_key(&older));
                let mut portions = segment.streams.iter().zip(retired);
                number != newest
                    && !guarding
                    && portions.all(|(portion, &retired)| portion.last <= retired)
            })
            .map(|(&number, segment)| Spent {
                number,
                name: segment.name.clone(),
                bytes: segment.bytes,
                reusable: segment.reusable,
            })
            .collect()
    }
}

fn gaps(report: &SegmentReport) -> Vec<(u64, u64)> {
    report
        .damage
        .iter()
        .map(|damage| (damage.offset, damage.offset + damage.bytes))
        .collect()
}
