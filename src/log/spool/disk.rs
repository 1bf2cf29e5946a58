//! The disk, as the spool sees it: one directory and the files in it.
//!
//! The seam at which tests put a disk that fails, tears and forgets. Promises
//! nothing that a disk does not: a write is durable after its file was synced,
//! a name after the directory was. Knows nothing of segments.

pub(crate) mod real;
pub(crate) mod space;
pub(crate) mod stall;

#[cfg(test)]
pub(crate) mod faulty;

use std::fmt::Debug;
use std::io;

/// A directory. Names are plain file names.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Makes a file that reads as `bytes` zeros, with space set aside for them
    /// where the file system can. Fails if the name is taken.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to be written over.
    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// All files, in no order.
    fn list(&self) -> io::Result<Vec<Listed>>;
    /// Renames a file, over another one if need be.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; whoever has it open may read on.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable that were made, changed and removed until now.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that we could still write to this file system.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Which file bears this name now; none if there is no such file.
    fn find(&self, name: &str) -> io::Result<Option<FileId>>;
    /// Whether the directory that was opened is still the one at its path.
    fn is_in_place(&self) -> io::Result<bool>;
}

/// Tells a file from any other one that exists at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) number: u64,
}

/// An open file.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Writes some of `bytes`, as `pwrite` does.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads some bytes, as `pread` does; none at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes durable what was written, as `fdatasync` does.
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

/// Writes all of `bytes`, however the disk portions them.
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

/// Reads until `into` is full or the file ends, and says how much that was.
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
