//! Recycled segments: files of deleted segments that wait to be used again.
//!
//! A file with its pages in memory and its blocks allocated costs half as much to write as a
//! new one. With new files, writing and syncing took a quarter of the service's CPU at full
//! rate.
//!
//! Invariant: segments and recycled segments together never take more space than the segments
//! alone have taken before. Recycled segments are removed as soon as a file of another size is
//! needed or the disk is short of space.

use std::io;
use std::sync::Mutex;

use tracing::warn;

use super::segment::RecycledSegment;
use crate::log::spool::catalog::Spent;
use crate::log::spool::disk::Disk;
use crate::log::spool::mutex::locked;
use crate::log::spool::spool_id::LEFTOVER_SUFFIX;

/// The most files that are kept: a disk fills no more segments between two ticks, so more would
/// only wait.
const RECYCLED_MAX: usize = 2;

/// The name of a file before it becomes, or after it was, the segment `name`.
pub(crate) fn leftover_name(name: &str) -> String {
    format!("{name}{LEFTOVER_SUFFIX}")
}

/// The recycled segments of one spool.
#[derive(Debug)]
pub(crate) struct RecycledSegments {
    /// Bytes of a regular segment; files of other sizes are not kept.
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

    /// Renames segments to recycled ones, and removes those that are not kept. Does not sync
    /// the directory: call [`RecycledSegments::keep`] with the result once it is synced.
    pub(crate) fn retire(
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
            let recycled = leftover_name(name);
            let done = if *reusable && room > 0 && *bytes == self.bytes {
                disk.rename(name, &recycled).map(|()| {
                    room -= 1;
                    kept.push(recycled.clone());
                })
            } else {
                disk.remove(name)
            };
            match done {
                Ok(()) => {}
                // An earlier attempt got this far and did not keep the recycled segment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => remove(disk, &recycled),
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    /// Makes renamed files available: the directory is synced, so their old names are gone for
    /// good.
    pub(crate) fn keep(&self, names: Vec<String>) {
        locked(&self.names).extend(names);
    }

    /// Whether [`RecycledSegments::take`] would find a file.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        bytes == self.bytes && !locked(&self.names).is_empty()
    }

    /// A file of `bytes` for a new segment. If that is not the regular size, all recycled
    /// segments are removed to make room.
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

    /// Removes all recycled segments.
    pub(crate) fn clear(&self, disk: &dyn Disk) {
        for name in std::mem::take(&mut *locked(&self.names)) {
            remove(disk, &name);
        }
    }
}

/// Removes a file that is not in use; if that fails, the next start removes it.
pub(crate) fn remove(disk: &dyn Disk, name: &str) {
    match disk.remove(name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(%error, file = %name, "cannot remove an unused file of the spool"),
    }
}
