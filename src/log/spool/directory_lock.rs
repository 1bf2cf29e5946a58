//! The lock that gives a spool directory to one process.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::disk::DiskFile;
use super::disk::real::file_at;

const FILE_NAME: &str = "lock";

/// An exclusive lock on the directory, until this is dropped or the process ends in any way.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    path: PathBuf,
}

impl DirectoryLock {
    /// Locks the directory. The error names the process that holds it.
    ///
    /// # Errors
    /// Another process has it, or the directory cannot be used.
    pub fn acquire(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The pid only helps to find the process: the error is right without it.
                let holder = match file.read_to_string(&mut pid) {
                    Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
                    Ok(_) | Err(_) => "another process".to_owned(),
                };
                bail!(
                    "the spool in {} is in use by {holder}: stop that one, or give each its own directory",
                    directory.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // A file that exists may have a wider mode. The result is ignored because not every
        // file system has modes.
        file.set_permissions(Permissions::from_mode(0o600)).ok();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Whether the locked file is still at its path. If it is not, another process can lock the
    /// directory.
    pub(crate) fn is_in_place(&self) -> std::io::Result<bool> {
        Ok(file_at(&self.path)? == Some(DiskFile::id(&self.file)?))
    }
}
