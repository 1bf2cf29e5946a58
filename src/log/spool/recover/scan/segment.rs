//! Scans the frames of one segment and the damage between them.

use std::ops::Range;

use anyhow::Context;

use super::report::{Damage, DamageKind, Ending, SegmentReport};
use crate::log::spool::format::{
    Counts, FRAME_HEADER_BYTES, FRAME_MARKER, FRAMES_START, FrameHeader, Predecessor, STREAMS_MAX,
    Seed, SegmentHeader, to_usize,
};
use crate::log::spool::portion::Portion;

/// What lies at an offset.
enum Seen {
    Frame(FrameHeader),
    /// The header is sound, the payload is corrupt.
    BadPayload(FrameHeader),
    Nothing,
}

/// A scan through the bytes of a segment.
struct Walk<'a> {
    bytes: &'a [u8],
    seed: Seed,
    at: usize,
    /// Bad ranges before a sound frame.
    gaps: Vec<Range<usize>>,
    /// The start of the current bad range.
    bad_from: Option<usize>,
    /// The latest start of a group according to sound headers.
    last_group: usize,
    frames: u64,
    end: usize,
    last_sequence: u64,
    streams: [Portion; STREAMS_MAX],
    /// Cumulative items of each stream at its last sound header.
    reached: Counts,
    missing: Vec<Missing>,
}

/// Items that later headers of the stream count, and no sound frame holds.
struct Missing {
    stream: usize,
    items: u64,
    /// The first of the gaps in which they can have been.
    since_gap: usize,
}

/// Reads the frames of a segment. `stated` is what a later segment states of this one: nothing
/// after its end counts, and everything before it should be there. `acked` holds the
/// committed sequence of each stream, where the caller needs `unacked`.
pub(crate) fn scan_segment(
    name: &str,
    bytes: &[u8],
    stated: Option<Predecessor>,
    acked: &Counts,
) -> anyhow::Result<SegmentReport> {
    let (header, both_copies) =
        SegmentHeader::decode(bytes).with_context(|| format!("cannot read segment {name}"))?;
    let limit = stated.map_or(bytes.len(), |stated| {
        usize::try_from(stated.end).map_or(bytes.len(), |end| end.min(bytes.len()))
    });
    let content = trimmed(bytes).min(limit);
    let start = to_usize(FRAMES_START);
    let mut walk = Walk {
        // Trailing zeros may belong to a payload, so they are kept here.
        bytes: &bytes[..limit],
        seed: header.seed(),
        at: start,
        gaps: Vec::new(),
        bad_from: None,
        last_group: start,
        frames: 0,
        end: start,
        last_sequence: header.first_sequence.saturating_sub(1),
        streams: [Portion::default(); STREAMS_MAX],
        reached: header.counts,
        missing: Vec::new(),
    };
    let mut gaps_seen = [0; STREAMS_MAX];
    while walk.at < content {
        walk.step(content, &mut gaps_seen, acked);
    }
    Ok(walk.report(name, bytes, header, both_copies, stated))
}

impl Walk<'_> {
    fn step(&mut self, content: usize, gaps_seen: &mut [usize; STREAMS_MAX], acked: &Counts) {
        match self.look() {
            Seen::Frame(frame) => {
                if let Some(from) = self.bad_from.take() {
                    self.gaps.push(from..self.at);
                }
                self.pass(&frame, gaps_seen);
                let portion = &mut self.streams[usize::from(frame.stream)];
                portion.last = frame.sequence;
                portion.frames += 1;
                portion.items += u64::from(frame.items);
                if frame.sequence > acked[usize::from(frame.stream)] {
                    portion.unacked += u64::from(frame.items);
                }
                self.frames += 1;
                self.at += to_usize(frame.frame_bytes());
                self.end = self.at;
            }
            Seen::BadPayload(frame) => {
                self.bad_from.get_or_insert(self.at);
                self.pass(&frame, gaps_seen);
                self.missing.push(Missing {
                    stream: usize::from(frame.stream),
                    items: u64::from(frame.items),
                    since_gap: self.gaps.len(),
                });
                self.at += to_usize(frame.frame_bytes());
            }
            Seen::Nothing => {
                self.bad_from.get_or_insert(self.at);
                let from = self.at + 1;
                let next = self.bytes[from..content]
                    .windows(FRAME_MARKER.len())
                    .position(|window| window == FRAME_MARKER);
                self.at = next.map_or(content, |found| from + found);
            }
        }
    }

    fn look(&self) -> Seen {
        let here = &self.bytes[self.at..];
        let Some(frame) = FrameHeader::decode(here, self.seed, self.at as u64) else {
            return Seen::Nothing;
        };
        // Sequences only increase; a sound frame with a lower one is stale.
        if frame.sequence <= self.last_sequence {
            return Seen::Nothing;
        }
        let payload = to_usize(FRAME_HEADER_BYTES)..to_usize(frame.frame_bytes());
        match here.get(payload) {
            Some(payload) if crc32c::crc32c(payload) == frame.payload_crc => Seen::Frame(frame),
            Some(_) => Seen::BadPayload(frame),
            // A torn frame: it reaches beyond the end.
            None => Seen::Nothing,
        }
    }

    /// Takes over what a sound header states.
    fn pass(&mut self, frame: &FrameHeader, gaps_seen: &mut [usize; STREAMS_MAX]) {
        let stream = usize::from(frame.stream);
        let before = frame.cumulative - u64::from(frame.items);
        let missing = before.saturating_sub(self.reached[stream]);
        if missing > 0 {
            self.missing.push(Missing {
                stream,
                items: missing,
                since_gap: gaps_seen[stream],
            });
        }
        self.reached[stream] = frame.cumulative;
        gaps_seen[stream] = self.gaps.len();
        self.last_sequence = frame.sequence;
        let group = self.at - frame.group_back as usize;
        self.last_group = self.last_group.max(group);
    }

    fn report(
        self,
        name: &str,
        bytes: &[u8],
        header: SegmentHeader,
        both_copies: bool,
        stated: Option<Predecessor>,
    ) -> SegmentReport {
        // In a whole segment everything was synced; otherwise, everything before the last
        // group.
        let whole = stated.is_some_and(|stated| stated.whole);
        let kind = |from: usize| match whole || from < self.last_group {
            true => DamageKind::Corrupt,
            false => DamageKind::Torn,
        };
        let range = |from: usize, to: usize| Damage {
            offset: from as u64,
            bytes: (to - from) as u64,
            kind: kind(from),
        };
        let mut damage: Vec<_> = self
            .gaps
            .iter()
            .map(|gap| range(gap.start, gap.end))
            .collect();
        let tail_bytes = trimmed(bytes).saturating_sub(self.end) as u64;
        let promised = stated.map_or(0, |stated| stated.end);
        let ending = if promised > self.end as u64 {
            let missing = Damage {
                offset: self.end as u64,
                bytes: promised - self.end as u64,
                kind: DamageKind::Corrupt,
            };
            damage.push(missing);
            Ending::Missing
        } else if tail_bytes == 0 {
            Ending::Clean
        } else if stated.is_some() {
            Ending::Discarded
        } else if let Some(from) = self.bad_from
            && kind(from) == DamageKind::Corrupt
        {
            // A sound header further on belongs to a later group; its payload is bad.
            damage.push(range(from, trimmed(bytes).max(from)));
            Ending::Missing
        } else if header.recycled {
            Ending::Stale
        } else {
            Ending::Torn
        };
        // Items that are only missing in torn groups were never accepted.
        let mut lost_items: Counts = [0; STREAMS_MAX];
        let mut counts = self.reached;
        for missing in &self.missing {
            let since = self.gaps.get(missing.since_gap);
            let from = since.map(|gap| gap.start).or(self.bad_from);
            match from.map_or(DamageKind::Corrupt, kind) {
                DamageKind::Corrupt => {
                    let lost = &mut lost_items[missing.stream];
                    *lost = lost.saturating_add(missing.items);
                }
                DamageKind::Torn => {
                    let count = &mut counts[missing.stream];
                    *count = count.saturating_sub(missing.items);
                }
            }
        }
        SegmentReport {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            frames: self.frames,
            end: self.end as u64,
            ending,
            damage,
            lost_items,
            header_copy_damaged: !both_copies,
            header,
            streams: self.streams,
            counts,
            last_sequence: self.last_sequence,
            tail_bytes,
            guards: None,
        }
    }
}

/// Length without the trailing zeros.
pub(crate) fn trimmed(bytes: &[u8]) -> usize {
    // Most of a preallocated file is zeros: compare them page by page.
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end >= ZEROS.len() && bytes[end - ZEROS.len()..end] == ZEROS {
        end -= ZEROS.len();
    }
    bytes[..end]
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}
