//! The segments on disk: what they hold, and which can go.
//!
//! Keeps one invariant: whatever lies before a segment's `end` is synced, and
//! nothing behind it is ever read. Does no IO.

use super::portion::Portion;
use std::collections::BTreeMap;

use super::format::{Counts, FRAMES_START, Predecessor, STREAMS_MAX, Seed};
use super::recover::scan::report::SegmentReport;

/// A segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) seed: Seed,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    pub(crate) streams: [Portion; STREAMS_MAX],
    /// Damaged ranges, as offset and the offset behind.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The segment whose end this one states, if it must outlive it.
    pub(crate) guards: Option<u64>,
    /// Made in this life, and no write or sync to it has failed: what the disk
    /// holds of it is known, so the file can be used again.
    pub(crate) reusable: bool,
}

/// A segment that nobody needs any more.
#[derive(Clone, Debug)]
pub(crate) struct Spent {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) reusable: bool,
}

/// All segments, by number.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    segments: BTreeMap<u64, Segment>,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Of the frame there.
    pub(crate) sequence: u64,
}

impl Segment {
    pub(crate) fn found(report: &SegmentReport) -> Self {
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
    pub(crate) fn correct(&mut self, report: &SegmentReport) {
        self.streams = report.streams;
        self.gaps = gaps(report);
    }

    /// Whether `offset` is damaged, and where the damage ends.
    pub(crate) fn gap_end(&self, offset: u64) -> Option<u64> {
        let gap = self
            .gaps
            .iter()
            .find(|&&(from, to)| (from..to).contains(&offset))?;
        Some(gap.1)
    }

    /// What a later segment would state of this one.
    pub(crate) fn as_predecessor(&self, number: u64) -> Predecessor {
        Predecessor {
            number,
            end: self.end,
            whole: true,
        }
    }
}

impl Catalog {
    pub(crate) fn insert(&mut self, number: u64, segment: Segment) {
        self.segments.insert(number, segment);
    }

    pub(crate) fn remove(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.get_mut(&number)
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// The first segment, from number `from` on, that holds a frame of `stream`
    /// later than `sequence`.
    pub(crate) fn next_with(
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
    pub(crate) fn backlog(&self, stream: usize) -> Option<(Position, u64)> {
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
    pub(crate) fn spent(&self, acked: &Counts) -> Vec<Spent> {
        let Some((&newest, _)) = self.segments.last_key_value() else {
            return Vec::new();
        };
        self.segments
            .iter()
            .filter(|&(&number, segment)| {
                let guarding = segment
                    .guards
                    .is_some_and(|older| self.segments.contains_key(&older));
                let mut portions = segment.streams.iter().zip(acked);
                number != newest
                    && !guarding
                    && portions.all(|(portion, &acked)| portion.last <= acked)
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
