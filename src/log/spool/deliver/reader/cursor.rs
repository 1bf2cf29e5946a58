//! The position of a reader on disk.

use crate::log::spool::catalog::Position;
use crate::log::spool::disk::DiskFile;

/// A position on disk.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Records up to here were delivered, skipped, or are lost.
    pub(super) read_to: u64,
    pub(super) file: Option<Box<dyn DiskFile>>,
    /// The position that was scanned again last.
    pub(super) rescanned: Option<(u64, u64)>,
}

impl Cursor {
    pub(super) fn at(position: Position) -> Self {
        Self {
            segment: position.segment,
            offset: position.offset,
            read_to: position.sequence - 1,
            file: None,
            rescanned: None,
        }
    }
}
