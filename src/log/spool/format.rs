//! The on-disk format of the log, version 2. Version 1 is read as well: it has 16 streams.
//!
//! Invariant: what decodes here was encoded for this spool id, this segment and this offset.
//! Pure: no files, no clock. Does not know which bytes are synced, nor what to do about corrupt
//! ones.
//!
//! # Limits
//!
//! | what | at most |
//! |---|---|
//! | streams | [`STREAMS_MAX`] |
//! | payload of a record | [`PAYLOAD_BYTES_MAX`] |
//! | file of a segment | [`SEGMENT_BYTES_MAX`] |
//! | a segment's number, a sequence, a count of items | [`NUMBER_MAX`] |
//!
//! # Grammar
//!
//! Numbers are little-endian. Offsets are from the start of the structure.
//!
//! ```text
//! file     = header pad(4096) header pad(8192) frame* (zero* | stale*)
//!            named <first sequence, 16 hex digits>.seg
//!
//! header   = 0    magic            8 bytes  "recspool"
//!  (512)     8    version          u32      2 (1: counts of 16 streams, zeros from 192 on)
//!            12   flags            u32      1: has a predecessor, 2: the predecessor is whole,
//!                                           4: the file is a recycled segment
//!            16   spool id         16 bytes uuid
//!            32   number           u64      unique and increasing within the spool id
//!            40   first sequence   u64      of the first frame, if there is one
//!            48   predecessor      u64      the number of the segment before
//!            56   its end          u64      from there on: the discarded tail
//!            64   counts           24 × u64 items of each stream before this segment
//!            256  zeros
//!            508  crc32c of 0..508
//!
//! frame    = 0    marker           4 bytes
//!  (44 +)    4    payload bytes    u32
//!            8    stream           u8
//!            9    flags, reserved  3 bytes  zeros
//!            12   items            u32
//!            16   group            u32      bytes back to the start of the group
//!            20   sequence         u64      the one before plus 1, within a segment
//!            28   cumulative       u64      items of the stream, this frame included
//!            36   payload crc      u32      crc32c of the payload
//!            40   header crc       u32      crc32c of (spool id, number, offset, 0..40)
//!            44   payload
//! ```
//!
//! A frame is one record on disk. Sequences never repeat; between segments numbers may be
//! skipped.
//!
//! # Why
//!
//! - The header is there twice, a page apart, and neither copy is written again while the file
//!   is this segment: one bad sector does not lose a segment.
//! - The header crc of a frame covers the spool id, the segment's number and the offset. So
//!   stale bytes of another file, or a copy of a frame inside a payload, never pass for a
//!   frame. It covers the payload crc, and so the payload.
//! - A sound frame header proves the payload's length. So a corrupt payload costs one record,
//!   and no search for the next one.
//! - Segment files are recycled: pages and blocks that exist already cost half as much to write
//!   as new ones. What the file held before follows the last frame. No crc fits there, and the
//!   sequences are too low as well.
//! - A group is what one write and one sync cover. A frame of a later group proves that
//!   everything before that group was synced. So a hole there is corruption, while a hole in
//!   the last group is what a power loss leaves.
//! - A segment states where the one before it ends. So the bytes of a failed write or sync are
//!   discarded for good, without another write to the file that failed.

use uuid::Uuid;

/// The version that is written.
pub const VERSION: u32 = 2;
/// The oldest version that is read. Its segments have fewer streams, and are the same otherwise.
pub const VERSION_LEAST: u32 = 1;
/// The most streams of a spool.
pub const STREAMS_MAX: usize = 24;
/// The most streams of a spool of version 1.
const STREAMS_OF_VERSION_1: usize = 16;
/// The largest payload of a record: 64 MiB.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// The largest segment file: 256 MiB, because recovery reads a whole segment into memory.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// The largest segment number, sequence and count of items. At a million records a second this
/// takes 9,000 years, so a larger number is corrupt. Sums over all streams fit the ledger's
/// signed 64 bits.
pub const NUMBER_MAX: u64 = 1 << 58;

/// Where frames begin in a segment.
pub(crate) const FRAMES_START: u64 = 8192;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: u64 = 44;
/// Bytes of one copy of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 512;
/// Where the second copy begins.
pub(crate) const SEGMENT_HEADER_COPY_AT: u64 = 4096;

/// Never occurs in UTF-8 text, so text in a payload is never a candidate for a frame.
pub(crate) const FRAME_MARKER: [u8; 4] = [0xf5, 0xc1, 0xfe, 0x91];
const MAGIC: [u8; 8] = *b"recspool";
const HEADER_CRC_AT: usize = 508;
const FRAME_CRC_AT: usize = 40;
const HAS_PREDECESSOR: u32 = 1;
const PREDECESSOR_WHOLE: u32 = 2;
const RECYCLED: u32 = 4;

/// One number for each stream.
pub type Counts = [u64; STREAMS_MAX];

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) spool_id: Uuid,
    pub(crate) number: u64,
    pub(crate) first_sequence: u64,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) counts: Counts,
    /// The file held another segment before, so stale bytes may follow the frames.
    pub(crate) recycled: bool,
}

/// What a segment's header states of the segment before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) number: u64,
    pub(crate) end: u64,
    /// Everything before `end` is synced. False for a segment found at start: its last group
    /// may have holes.
    pub(crate) whole: bool,
}

/// Why a segment's header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Both copies are damaged.
    #[error("both copies of the header are damaged")]
    Damaged,
    /// The header is sound, but of another version.
    #[error(
        "it has format version {0}, and only versions {VERSION_LEAST} to {VERSION} can be read"
    )]
    Version(u32),
    /// The header is sound, but its numbers are impossible.
    #[error("its header holds numbers that no spool gets to")]
    Impossible,
    /// Another file holds the segment with this number.
    #[error("another file holds the segment of the same number")]
    Copied,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) stream: u8,
    pub(crate) items: u32,
    pub(crate) group_back: u32,
    pub(crate) sequence: u64,
    pub(crate) cumulative: u64,
    pub(crate) payload_crc: u32,
}

/// The part of a frame's header crc that depends on the spool id and the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl SegmentHeader {
    pub(crate) fn seed(&self) -> Seed {
        let of_spool_id = crc32c::crc32c(self.spool_id.as_bytes());
        Seed(crc32c::crc32c_append(
            of_spool_id,
            &self.number.to_le_bytes(),
        ))
    }

    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        let recycled = if self.recycled { RECYCLED } else { 0 };
        let (flags, number, end) = match self.predecessor {
            None => (recycled, 0, 0),
            Some(Predecessor { number, end, whole }) => {
                let whole = if whole { PREDECESSOR_WHOLE } else { 0 };
                (HAS_PREDECESSOR | whole | recycled, number, end)
            }
        };
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&flags.to_le_bytes());
        out[16..32].copy_from_slice(self.spool_id.as_bytes());
        out[32..40].copy_from_slice(&self.number.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[48..56].copy_from_slice(&number.to_le_bytes());
        out[56..64].copy_from_slice(&end.to_le_bytes());
        for (count, at) in self.counts.iter().zip((64..).step_by(8)) {
            out[at..at + 8].copy_from_slice(&count.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..HEADER_CRC_AT]);
        out[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header from the start of a segment's bytes. The flag is true if both copies
    /// are sound and equal.
    pub(crate) fn decode(file: &[u8]) -> Result<(Self, bool), HeaderError> {
        let copy_at = to_usize(SEGMENT_HEADER_COPY_AT);
        match (Self::decode_copy(file, 0), Self::decode_copy(file, copy_at)) {
            (Ok(first), Ok(second)) => Ok((first.clone(), first == second)),
            // Another version may keep its second copy elsewhere, so one copy is enough to
            // report it.
            (Err(HeaderError::Version(version)), _) | (_, Err(HeaderError::Version(version))) => {
                Err(HeaderError::Version(version))
            }
            (Ok(header), Err(_)) | (Err(_), Ok(header)) => Ok((header, false)),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn decode_copy(file: &[u8], at: usize) -> Result<Self, HeaderError> {
        let bytes = file
            .get(at..at + SEGMENT_HEADER_BYTES)
            .ok_or(HeaderError::Damaged)?;
        let sound = bytes[..8] == MAGIC
            && crc32c::crc32c(&bytes[..HEADER_CRC_AT]) == u32_at(bytes, HEADER_CRC_AT);
        if !sound {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(bytes, 8);
        if !(VERSION_LEAST..=VERSION).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        let streams = match version {
            1 => STREAMS_OF_VERSION_1,
            _ => STREAMS_MAX,
        };
        let count_of = |stream: usize| match stream < streams {
            true => u64_at(bytes, 64 + 8 * stream),
            false => 0,
        };
        let flags = u32_at(bytes, 12);
        let predecessor = Predecessor {
            number: u64_at(bytes, 48),
            end: u64_at(bytes, 56),
            whole: flags & PREDECESSOR_WHOLE != 0,
        };
        let header = Self {
            spool_id: Uuid::from_slice(&bytes[16..32]).expect("a uuid is 16 bytes"),
            number: u64_at(bytes, 32),
            first_sequence: u64_at(bytes, 40),
            predecessor: (flags & HAS_PREDECESSOR != 0).then_some(predecessor),
            counts: std::array::from_fn(count_of),
            recycled: flags & RECYCLED != 0,
        };
        match header.is_possible() {
            true => Ok(header),
            false => Err(HeaderError::Impossible),
        }
    }

    /// Whether a spool can have written these numbers.
    fn is_possible(&self) -> bool {
        let predecessor = self.predecessor.is_none_or(|before| {
            before.number < self.number && (FRAMES_START..=SEGMENT_BYTES_MAX).contains(&before.end)
        });
        let mut numbers = [self.number, self.first_sequence]
            .into_iter()
            .chain(self.counts);
        predecessor && numbers.all(|number| number <= NUMBER_MAX)
    }
}

impl FrameHeader {
    /// Bytes of the frame, header and payload.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES + u64::from(self.payload_bytes)
    }

    /// Appends the header of a frame at `offset` of its segment.
    pub(crate) fn encode(&self, seed: Seed, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&FRAME_MARKER);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&[self.stream, 0, 0, 0]);
        out.extend_from_slice(&self.items.to_le_bytes());
        out.extend_from_slice(&self.group_back.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.cumulative.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        let crc = frame_crc(seed, offset, &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Reads the frame header at the start of `bytes`, which lie at `offset` of their segment.
    /// `None`: no sound header is there.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..to_usize(FRAME_HEADER_BYTES))?;
        let sound = bytes[..4] == FRAME_MARKER
            && frame_crc(seed, offset, &bytes[..FRAME_CRC_AT]) == u32_at(bytes, FRAME_CRC_AT);
        let header = Self {
            payload_bytes: u32_at(bytes, 4),
            stream: bytes[8],
            items: u32_at(bytes, 12),
            group_back: u32_at(bytes, 16),
            sequence: u64_at(bytes, 20),
            cumulative: u64_at(bytes, 28),
            payload_crc: u32_at(bytes, 36),
        };
        let possible = header.payload_bytes <= PAYLOAD_BYTES_MAX
            && usize::from(header.stream) < STREAMS_MAX
            && bytes[9..12] == [0; 3]
            && u64::from(header.group_back) <= offset
            && header.sequence <= NUMBER_MAX
            && header.cumulative <= NUMBER_MAX
            && header.cumulative >= u64::from(header.items);
        (sound && possible).then_some(header)
    }
}

/// A length in memory. All lengths here are far below 2³².
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("segments are far smaller than the address space")
}

/// The file name of the segment with this first sequence.
pub(crate) fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:016x}.seg")
}

/// The first sequence in a segment's file name; `None` if the name is not a segment's.
pub(crate) fn first_sequence_in_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    // Other spellings of the same number are not names that the spool writes.
    (segment_name(first) == name).then_some(first)
}

fn frame_crc(seed: Seed, offset: u64, header: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed.0, &offset.to_le_bytes());
    crc32c::crc32c_append(crc, header)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests;
