//! Segment files that are done with and wait to be used again.
//!
//! A file whose pages are in memory and whose blocks are written takes frames at
//! half the price of a fresh one: in the middle of a full-rate load, writing and
//! syncing was a quarter of the service's CPU.
//!
//! Keeps one invariant: spares and segments together never take more than the
//! segments alone have taken before. A spare is a segment that went, and goes as
//! soon as a file of another size is needed or the disk is short of space.

use std::io;
use std::sync::Mutex;

use tracing::warn;

use super::segment::RecycledSegment;
use crate::log::spool::catalog::Spent;
use crate::log::spool::disk::Disk;
use crate::log::spool::mutex::locked;
use crate::log::spool::spool_id::LEFTOVER_SUFFIX;

/// More would only wait: between two looks at what is done with, a disk fills
/// no more files than this.
const RECYCLED_MAX: usize = 2;

/// The name of a file that is to become, or was, the segment `name`.
pub(crate) fn blank_name(name: &str) -> String {
    format!("{name}{LEFTOVER_SUFFIX}")
}

/// The spares of one spool.
#[derive(Debug)]
pub(crate) struct RecycledSegments {
    /// Bytes of a segment of the usual size; no others are kept.
    bytes: u64,
    names: Mutex<Vec<String>>,
}

impl RecycledSegments {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            names: Mutex::default(),
        }
    }

    /// Takes the segments' names from them: of some so that they can be used
    /// again, of the others for good. The directory is not synced; once it is,
    /// call [`RecycledSegments::keep`] with what this returns.
    pub(crate) fn ack(
        &self,
        disk: &dyn Disk,
        spent: &[Spent],
        keep: bool,
    ) -> io::Result<Vec<String>> {
        let mut room = match keep {
            true => RECYCLED_MAX.saturating_sub(locked(&self.names).len()),
            false => 0,
        };
        let mut kept = Vec::new();
        for Spent {
            name,
            bytes,
            reusable,
            ..
        } in spent
        {
            let blank = blank_name(name);
            let done = if *reusable && room > 0 && *bytes == self.bytes {
                disk.rename(name, &blank).map(|()| {
                    room -= 1;
                    kept.push(blank.clone());
                })
            } else {
                disk.remove(name)
            };
            match done {
                Ok(()) => {}
                // An attempt before got this far, and nobody knows of its spare.
                Err(error) if error.kind() == io::ErrorKind::NotFound => remove(disk, &blank),
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    /// The directory was synced: these have lost their old names for good.
    pub(crate) fn keep(&self, names: Vec<String>) {
        locked(&self.names).extend(names);
    }

    /// Whether [`RecycledSegments::take`] would find one.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        bytes == self.bytes && !locked(&self.names).is_empty()
    }

    /// A file of `bytes` to begin a segment in. If there are only others, they
    /// make room for the one that will be made.
    pub(crate) fn take(&self, disk: &dyn Disk, bytes: u64) -> Option<RecycledSegment> {
        if bytes != self.bytes {
            self.clear(disk);
            return None;
        }
        while let Some(name) = { locked(&self.names).pop() } {
            match disk.reopen(&name) {
                Ok(file) => return Some(RecycledSegment { file, name }),
                Err(error) => {
                    warn!(%error, file = %name, "cannot use a spool file again, making a new one");
                    remove(disk, &name);
                }
            }
        }
        None
    }

    /// Gives the space back.
    pub(crate) fn clear(&self, disk: &dyn Disk) {
        for name in std::mem::take(&mut *locked(&self.names)) {
            remove(disk, &name);
        }
    }
}

/// Removes a file that nobody refers to; if that fails, the next start does it.
pub(crate) fn remove(disk: &dyn Disk, name: &str) {
    match disk.remove(name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(%error, file = %name, "cannot remove an unused file of the spool"),
    }
}
