//! Reads the records of a lane back from disk.
//!
//! Reads only up to the `end` of a segment, and only what was offered to the lane. A range that
//! fails its checksum is scanned again, logged, copied and then skipped, never in silence.

use std::io;

use anyhow::{Context, bail};
use bytes::Bytes;
use tracing::error;

use super::LaneReader;
use super::cursor::Cursor;
use crate::log::record::Delivered;
use crate::log::spool::catalog::Segment;
use crate::log::spool::disk::{DiskFile, read_full};
use crate::log::spool::format::{FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, to_usize};
use crate::log::spool::portion::Portion;
use crate::log::spool::recover::{repair, scan};

/// With smaller reads, system calls cost more than the bytes.
const READ_BYTES_MIN: usize = 64 << 10;

/// The bytes of one read.
struct Chunk {
    bytes: Bytes,
    offset: u64,
}

/// The result of taking records from a chunk.
enum Outcome {
    /// Every complete record that may be read is taken.
    Done,
    /// The bytes at the cursor are corrupt.
    Bad,
}

impl<L, R> LaneReader<L, R> {
    /// Reads the next records from disk, about `bytes_max` bytes and at least one record.
    ///
    /// Blocks while it reads. An empty result means that the next record is, or will be, in
    /// memory: call [`LaneReader::try_next`]. After an error nothing is lost: call again after
    /// a pause.
    pub fn read_from_disk(
        &mut self,
        bytes_max: usize,
    ) -> anyhow::Result<Vec<Delivered<Option<L>, R>>> {
        // The records in memory come before the first one on disk.
        let in_memory = self.peeked.is_some() || !self.frames.is_empty();
        if self.cursor.is_none() && in_memory {
            return Ok(Vec::new());
        }
        let (from, mut limit) = {
            let state = self.lane.lock();
            match state.lag.on_disk_from() {
                Some(from) => (from, state.lag.last()),
                None => return Ok(Vec::new()),
            }
        };
        let mut cursor = self.cursor.take().unwrap_or_else(|| Cursor::at(from));
        let mut out = Vec::new();
        let read = loop {
            if cursor.read_to >= limit {
                let mut state = self.lane.lock();
                if state.lag.catch_up(cursor.read_to) {
                    self.shared.write_off(self.stream);
                    drop(state);
                    self.reckon();
                    return Ok(out);
                }
                limit = state.lag.last();
            }
            if !out.is_empty() {
                break Ok(());
            }
            self.shared.reading[self.stream].begins();
            let read = self.read_chunk(&mut cursor, limit, bytes_max, &mut out);
            self.shared.reading[self.stream].ends();
            if let Err(error) = read {
                break Err(error);
            }
        };
        self.cursor = Some(cursor);
        if !out.is_empty() {
            self.reckon();
        }
        // Records that were read are delivered even if the next ones cannot be read.
        match read {
            Err(error) if out.is_empty() => Err(error),
            Ok(()) | Err(_) => Ok(out),
        }
    }

    /// Reads one chunk, and takes this stream's records from it.
    fn read_chunk(
        &mut self,
        cursor: &mut Cursor,
        limit: u64,
        bytes_max: usize,
        out: &mut Vec<Delivered<Option<L>, R>>,
    ) -> anyhow::Result<()> {
        let segment = {
            let catalog = self.shared.catalog();
            let Some((number, segment)) =
                catalog.next_with(self.stream, cursor.segment, cursor.read_to)
            else {
                // An offered record is in the catalog, unless it was lost.
                cursor.read_to = limit;
                return Ok(());
            };
            if number != cursor.segment {
                *cursor = Cursor {
                    segment: number,
                    offset: FRAMES_START,
                    read_to: cursor.read_to,
                    file: None,
                    rescanned: None,
                };
            }
            segment.clone()
        };
        if self.skip_whole(cursor, &segment) {
            return Ok(());
        }
        let name = &segment.name;
        let file = match &cursor.file {
            Some(file) => file,
            None => match self.shared.disk.open(name) {
                Ok(file) => cursor.file.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.give_up(cursor.segment, name);
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot open segment {name}"));
                }
            },
        };
        let chunk = read(file.as_ref(), cursor.offset, segment.end, bytes_max)
            .with_context(|| format!("cannot read segment {name} at byte {}", cursor.offset))?;
        let before = cursor.offset;
        match self.take_frames(cursor, &segment, &chunk, limit, out) {
            Outcome::Done if cursor.offset > before || cursor.offset == segment.end => Ok(()),
            // The records before the damage are delivered first; the next read begins with it.
            Outcome::Bad if !out.is_empty() => Ok(()),
            // A file that ends too early leaves the cursor in place.
            Outcome::Done | Outcome::Bad => self.rescan(cursor, &segment),
        }
    }

    /// Takes this stream's records from a chunk, and moves the cursor past what it has seen.
    fn take_frames(
        &mut self,
        cursor: &mut Cursor,
        segment: &Segment,
        chunk: &Chunk,
        limit: u64,
        out: &mut Vec<Delivered<Option<L>, R>>,
    ) -> Outcome {
        while cursor.read_to < limit && cursor.offset < segment.end {
            if let Some(end) = segment.gap_end(cursor.offset) {
                cursor.offset = end;
                continue;
            }
            let Some(rest) = chunk.from(cursor.offset) else {
                return Outcome::Done;
            };
            if (rest.len() as u64) < FRAME_HEADER_BYTES
                && chunk.offset + (chunk.bytes.len() as u64) < segment.end
            {
                return Outcome::Done; // The next chunk begins here.
            }
            let Some(frame) = FrameHeader::decode(rest, segment.seed, cursor.offset) else {
                return Outcome::Bad;
            };
            let behind = cursor.offset + frame.frame_bytes();
            if usize::from(frame.stream) == self.stream {
                if frame.sequence <= self.skip {
                    let items = u64::from(frame.items);
                    self.found.passed_over += items;
                    self.shared.advance(self.stream, frame.sequence, 1, items);
                } else {
                    let payload = to_usize(FRAME_HEADER_BYTES)..to_usize(frame.frame_bytes());
                    if rest.len() < payload.end {
                        return Outcome::Done; // The next chunk begins with it.
                    }
                    if crc32c::crc32c(&rest[payload.clone()]) != frame.payload_crc {
                        return Outcome::Bad;
                    }
                    let from = to_usize(cursor.offset - chunk.offset);
                    let payload = payload.start + from..payload.end + from;
                    out.push(self.deliver(frame, chunk.bytes.slice(payload)));
                }
                cursor.read_to = frame.sequence;
            }
            cursor.offset = behind;
        }
        Outcome::Done
    }

    fn deliver(&self, frame: FrameHeader, payload: Bytes) -> Delivered<Option<L>, R> {
        let FrameHeader {
            sequence, items, ..
        } = frame;
        self.shared.deliver(self.stream, sequence, items);
        Delivered {
            sequence,
            items,
            payload,
            memory: None,
            result: self.lane.lock().waiting(sequence),
        }
    }

    /// Skips a segment if all its records of this stream are acked.
    fn skip_whole(&mut self, cursor: &mut Cursor, segment: &Segment) -> bool {
        let portion = segment.streams[self.stream];
        let skip = cursor.offset == FRAMES_START && portion.last <= self.skip;
        if skip {
            cursor.read_to = portion.last;
            self.found.passed_over += portion.items;
            self.shared
                .advance(self.stream, portion.last, portion.frames, portion.items);
        }
        skip
    }

    /// Drops this stream's records of a segment with a missing file. They are counted as lost
    /// when the lane has caught up.
    fn give_up(&self, number: u64, name: &str) -> anyhow::Result<()> {
        if !self.shared.is_in_place() {
            bail!("the spool's directory was removed, moved or replaced: start the service again");
        }
        error!(segment = %name, stream = self.stream, "a spool segment was removed while it held events; those that are not in memory are lost");
        if let Some(segment) = self.shared.catalog().get_mut(number) {
            segment.streams[self.stream] = Portion::default();
        }
        Ok(())
    }

    /// Finds the extent of the damage at the cursor: the bytes there were sound when they were
    /// written.
    fn rescan(&self, cursor: &mut Cursor, segment: &Segment) -> anyhow::Result<()> {
        let (name, place) = (&segment.name, (cursor.segment, cursor.offset));
        if cursor.rescanned == Some(place) {
            bail!("segment {name} reads differently each time: check the disk");
        }
        let disk = self.shared.disk.as_ref();
        // The group committer waits for the catalog's lock: nothing may be appended between the
        // scan and the correction. That is rare.
        let mut catalog = self.shared.catalog();
        let known = catalog
            .get_mut(cursor.segment)
            .with_context(|| format!("segment {name} is gone"))?;
        let report = scan::rescan(disk, name, known.as_predecessor(cursor.segment))?;
        report.log();
        for damage in &report.damage {
            if let Err(error) = repair::copy_damage(disk, name, damage) {
                error!(segment = %name, offset = damage.offset, bytes = damage.bytes, error = %format!("{error:#}"), "cannot copy damaged bytes of the spool");
            }
        }
        known.correct(&report);
        cursor.rescanned = Some(place);
        Ok(())
    }
}

impl Chunk {
    /// The bytes of the chunk from `offset` on; `None` if there are none.
    fn from(&self, offset: u64) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(at..).filter(|rest| !rest.is_empty())
    }
}

/// Reads up to `bytes_max` from `offset`, and a whole frame if one begins there.
fn read(file: &dyn DiskFile, offset: u64, end: u64, bytes_max: usize) -> io::Result<Chunk> {
    let left = to_usize(end - offset);
    let mut bytes = vec![0; left.min(bytes_max.max(READ_BYTES_MIN))];
    let mut filled = read_full(file, &mut bytes, offset)?;
    if let Some(length) = bytes.get(4..8) {
        // This may not be a frame; the caller checks it.
        let payload = u32::from_le_bytes(length.try_into().expect("four bytes"));
        let frame = to_usize(FRAME_HEADER_BYTES) + payload as usize;
        if frame > bytes.len() && frame <= left {
            bytes.resize(frame, 0);
            filled += read_full(file, &mut bytes[filled..], offset + filled as u64)?;
        }
    }
    bytes.truncate(filled);
    Ok(Chunk {
        bytes: bytes.into(),
        offset,
    })
}
