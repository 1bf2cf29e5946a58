//! The bytes of the log, version 1.
//!
//! Keeps one invariant: what decodes here was encoded here, for this instance,
//! this segment and this very offset. Pure: no files, no clock. Whether bytes
//! had been synced, and what to do about bad ones, is for others to say.
//!
//! # Limits
//!
//! | what | at most |
//! |---|---|
//! | streams | [`STREAMS_MAX`] |
//! | payload of a frame | [`PAYLOAD_BYTES_MAX`] |
//! | file of a segment | [`SEGMENT_BYTES_MAX`] |
//! | a segment's number, a sequence, a count of items | [`NUMBER_MAX`] |
//!
//! # Grammar
//!
//! Numbers are little-endian; offsets are from the start of what they describe.
//!
//! ```text
//! file     = header pad(4096) header pad(8192) frame* (zero* | stale*)
//!            named <first sequence, 16 hex digits>.seg
//!
//! header   = 0    magic            8 bytes  "recspool"
//!  (512)     8    version          u32      1
//!            12   flags            u32      1: has a predecessor, 2: the predecessor is whole,
//!                                           4: the file held another segment before
//!            16   instance         16 bytes uuid of the spool
//!            32   number           u64      unique and increasing within the instance
//!            40   first sequence   u64      of the first frame, if there is one
//!            48   predecessor      u64      the number of the segment before
//!            56   its end          u64      whatever follows there is void
//!            64   counts           16 × u64 items of each stream before this segment
//!            192  zeros
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
//!            40   header crc       u32      crc32c of (instance, number, offset, 0..40)
//!            44   payload
//! ```
//!
//! Sequences never repeat; between segments numbers may be left out.
//!
//! Why it is so:
//! - The header is there twice, a page apart, and neither page is ever written
//!   again: one bad sector does not cost a segment.
//! - A frame's header crc depends on the instance, the segment and the offset:
//!   stale bytes of another file, or a copy of a frame inside a payload, are
//!   never taken for a frame. It covers the payload's crc, and so the payload.
//! - A header that checks out vouches for the payload's length, so one bad
//!   payload costs one frame and no search.
//! - Files are used again, because pages and blocks that are there already take
//!   half the time of new ones. What the file held before then follows the last
//!   frame; no crc there fits, and its sequences are too low besides.
//! - A group is what was written and synced at once. A frame of a later group
//!   proves that everything before that group had been synced: holes there are
//!   damage, holes in the last group are what a power cut leaves.
//! - A segment says where the one before it ends, so bytes whose write or sync
//!   failed are void for good without another write to the file that failed.

use uuid::Uuid;

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// The most streams that a spool can hold.
pub const STREAMS_MAX: usize = 16;
/// The largest payload of a frame: 64 MiB.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// The largest segment file: 256 MiB, because recovery holds one in memory.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// The largest number of a segment, sequence, and count of items. A million
/// frames a second get here in 9,000 years, so what is beyond was not written by
/// a spool. Sums over all streams stay within the ledger's signed 64 bits.
pub const NUMBER_MAX: u64 = 1 << 58;

/// Where frames begin.
pub(crate) const FRAMES_START: u64 = 8192;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: u64 = 44;
/// Bytes of one copy of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 512;
/// Where the second copy begins.
pub(crate) const SEGMENT_HEADER_COPY_AT: u64 = 4096;

/// Not UTF-8 anywhere, so that text in a payload is never a candidate.
pub(crate) const FRAME_MARKER: [u8; 4] = [0xf5, 0xc1, 0xfe, 0x91];
const MAGIC: [u8; 8] = *b"recspool";
const HEADER_CRC_AT: usize = 508;
const FRAME_CRC_AT: usize = 40;
const HAS_PREDECESSOR: u32 = 1;
const PREDECESSOR_WHOLE: u32 = 2;
const RECYCLED: u32 = 4;

/// A number for each stream.
pub type Counts = [u64; STREAMS_MAX];

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) instance: Uuid,
    pub(crate) number: u64,
    pub(crate) first_sequence: u64,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) counts: Counts,
    /// Behind the frames there may be bytes of a segment that the file held before.
    pub(crate) recycled: bool,
}

/// What a segment says of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) number: u64,
    pub(crate) end: u64,
    /// Everything before `end` had been synced. Not so for a segment that was
    /// found after a crash: its last group may have holes.
    pub(crate) whole: bool,
}

/// Why a segment's header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Both copies are damaged.
    #[error("both copies of the header are damaged")]
    Damaged,
    /// The header is sound, but of another version.
    #[error("it has format version {0}, and only version {VERSION} can be read")]
    Version(u32),
    /// The header is sound, and holds numbers that no spool writes.
    #[error("its header holds numbers that no spool gets to")]
    Impossible,
    /// Another file holds the segment of this number.
    #[error("another file holds the segment of the same number")]
    Copied,
}

/// What a frame says of itself.
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

/// What ties a frame's crc to its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl SegmentHeader {
    pub(crate) fn seed(&self) -> Seed {
        let of_instance = crc32c::crc32c(self.instance.as_bytes());
        Seed(crc32c::crc32c_append(
            of_instance,
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
        out[16..32].copy_from_slice(self.instance.as_bytes());
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

    /// Reads the header from the start of a segment's bytes, and says whether
    /// both copies are sound.
    pub(crate) fn decode(file: &[u8]) -> Result<(Self, bool), HeaderError> {
        let copy_at = to_usize(SEGMENT_HEADER_COPY_AT);
        match (Self::decode_copy(file, 0), Self::decode_copy(file, copy_at)) {
            (Ok(first), Ok(second)) => Ok((first.clone(), first == second)),
            // A version that we do not know may have no second copy there.
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
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let flags = u32_at(bytes, 12);
        let predecessor = Predecessor {
            number: u64_at(bytes, 48),
            end: u64_at(bytes, 56),
            whole: flags & PREDECESSOR_WHOLE != 0,
        };
        let header = Self {
            instance: Uuid::from_slice(&bytes[16..32]).expect("a uuid is 16 bytes"),
            number: u64_at(bytes, 32),
            first_sequence: u64_at(bytes, 40),
            predecessor: (flags & HAS_PREDECESSOR != 0).then_some(predecessor),
            counts: std::array::from_fn(|stream| u64_at(bytes, 64 + 8 * stream)),
            recycled: flags & RECYCLED != 0,
        };
        match header.is_possible() {
            true => Ok(header),
            false => Err(HeaderError::Impossible),
        }
    }

    /// Whether a spool can have come to these numbers.
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

    /// Appends the header of a frame that begins at `offset` of its segment.
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

    /// Reads the header at the start of `bytes`, which are at `offset` of their
    /// segment. `None`: there is no frame there.
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

/// A length in memory; everything here is far below 2³².
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("segments are far smaller than the address space")
}

/// The name of the segment whose first frame is `first_sequence`.
pub(crate) fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:016x}.seg")
}

/// The first sequence in a segment's name; `None`: not a segment's name.
pub(crate) fn first_sequence_in_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    // Only the one spelling that we write.
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
