//! The disk as the spool sees it: one directory and its files.
//!
//! Tests replace it by a disk that fails, tears writes and loses what was not synced. The trait
//! promises no more than a disk does: a write is durable after its file is synced, a name after
//! the directory is. Knows nothing of segments.

pub(crate) mod real;
pub(crate) mod space;
pub(crate) mod stall;

#[cfg(any(test, fuzzing))]
#[cfg_attr(
    fuzzing,
    allow(
        dead_code,
        reason = "fuzz targets need a disk in memory, and none of its faults"
    )
)]
pub(crate) mod faulty;

use std::fmt::Debug;
use std::io;

/// A directory. Names are plain file names.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Creates a file that reads as `bytes` zeros, with the space allocated where the file
    /// system can. Fails if the name exists.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// All files, in no order.
    fn list(&self) -> io::Result<Vec<Listed>>;
    /// Renames a file; replaces an existing one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. A process that has it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes durable all names that were created, renamed or removed so far.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes of the file system that this process may still allocate.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The file with this name now; `None` if there is no such file.
    fn find(&self, name: &str) -> io::Result<Option<FileId>>;
    /// Whether the directory that was opened is still the one at its path.
    fn is_in_place(&self) -> io::Result<bool>;
}

/// Identifies a file among all that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) number: u64,
}

/// An open file.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Writes some of `bytes`, as `pwrite` does.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads some bytes, as `pread` does; zero at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes the written bytes durable, as `fdatasync` does.
    fn sync_data(&self) -> io::Result<()>;
    /// Which file it is.
    fn id(&self) -> io::Result<FileId>;
}

/// A file in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Writes all of `bytes`, with as many calls as the disk needs.
pub(crate) fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `into` is full or the file ends; returns the bytes read.
pub(crate) fn read_full(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
