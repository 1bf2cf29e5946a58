//! The segments on disk: what they hold, and which can be deleted.
//!
//! Invariant: nothing at or after a segment's `end` is read. What lies before it was synced, or
//! was read and checked at start. Does no IO.

use super::portion::Portion;
use std::collections::BTreeMap;

use super::format::{Counts, FRAMES_START, Predecessor, STREAMS_MAX, Seed};
use super::recover::scan::report::SegmentReport;

/// A segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) seed: Seed,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    pub(crate) streams: [Portion; STREAMS_MAX],
    /// Corrupt or torn ranges, as start and end offset.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The segment before, if this one must not be deleted first: only this header states where
    /// the discarded tail of that one begins.
    pub(crate) guards: Option<u64>,
    /// Created by this process, and no write or sync to it failed. So its content on disk is
    /// known, and the file can be recycled.
    pub(crate) reusable: bool,
}

/// A segment that is no longer needed.
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

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Sequence of the record there, or a lower bound.
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

    /// Replaces what the catalog knows of the segment by the result of another scan.
    pub(crate) fn correct(&mut self, report: &SegmentReport) {
        self.streams = report.streams;
        self.gaps = gaps(report);
    }

    /// The end of the damaged range that contains `offset`; `None` if it is not damaged.
    pub(crate) fn gap_end(&self, offset: u64) -> Option<u64> {
        let gap = self
            .gaps
            .iter()
            .find(|&&(from, to)| (from..to).contains(&offset))?;
        Some(gap.1)
    }

    /// What the header of the next segment states of this one.
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

    /// The first segment, from number `from` on, that holds a record of `stream` after
    /// `sequence`.
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

    /// Where the records of a stream begin, and its last sequence; `None` if there are none.
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

    /// Segments that are no longer needed: every record is acked, no older segment's end
    /// depends on them, and a newer segment carries the counts on.
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
