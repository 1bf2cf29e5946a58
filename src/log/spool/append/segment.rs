//! The active segment.
//!
//! Invariant: after a write or sync that failed, the file is neither written nor synced again.
//! The kernel may have dropped the dirty pages and marked them clean, so a second fdatasync
//! would succeed without having written them.

use std::io;

use crate::log::spool::disk::{Disk, DiskFile, FileId, write_all};
use crate::log::spool::format::{FRAMES_START, SEGMENT_HEADER_COPY_AT, Seed, SegmentHeader};

/// A file without a segment's name: new, or recycled.
#[derive(Debug)]
pub(crate) struct RecycledSegment {
    pub(crate) file: Box<dyn DiskFile>,
    /// Its name until it is a segment; a start removes files with such names.
    pub(crate) name: String,
}

/// A segment that is open for appending.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    file: Box<dyn DiskFile>,
    name: String,
    id: FileId,
    number: u64,
    seed: Seed,
    bytes: u64,
    /// Everything before is synced.
    end: u64,
    failed: bool,
}

impl ActiveSegment {
    /// Begins the segment `name` in `file` of `bytes` bytes. When this returns, the
    /// header and the name are durable.
    pub(crate) fn begin(
        disk: &dyn Disk,
        file: RecycledSegment,
        name: &str,
        header: &SegmentHeader,
        bytes: u64,
    ) -> io::Result<Self> {
        let RecycledSegment { file, name: before } = file;
        let encoded = header.encode();
        write_all(file.as_ref(), &encoded, 0)?;
        write_all(file.as_ref(), &encoded, SEGMENT_HEADER_COPY_AT)?;
        file.sync_data()?;
        // After the sync: a file with a segment's name always has that segment's header.
        disk.rename(&before, name)?;
        disk.sync_dir()?;
        let id = file.id()?;
        Ok(Self {
            file,
            name: name.to_owned(),
            id,
            number: header.number,
            seed: header.seed(),
            bytes,
            end: FRAMES_START,
            failed: false,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    /// Where the next group begins; everything before is synced.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether its name still leads to it. A sync of a file without a name succeeds, and
    /// protects nothing.
    pub(crate) fn is_in_place(&self, disk: &dyn Disk) -> io::Result<bool> {
        Ok(disk.find(&self.name)? == Some(self.id))
    }

    /// Whether it holds no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == FRAMES_START
    }

    /// Bytes that still fit.
    pub(crate) fn free(&self) -> u64 {
        self.bytes - self.end
    }

    /// Appends a group and syncs it. After a failure the segment takes nothing more.
    pub(crate) fn append(&mut self, group: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the segment has failed before"));
        }
        let done =
            write_all(self.file.as_ref(), group, self.end).and_then(|()| self.file.sync_data());
        match done {
            Ok(()) => self.end += group.len() as u64,
            Err(_) => self.failed = true,
        }
        done
    }
}
