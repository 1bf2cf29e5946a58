//! Where a reader is on disk.

use crate::log::spool::catalog::Position;
use crate::log::spool::disk::DiskFile;

/// A place on disk.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Frames up to here were given, skipped, or are lost.
    pub(super) read_to: u64,
    pub(super) file: Option<Box<dyn DiskFile>>,
    /// The damage at this place was just looked into.
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
