//! Errors of finding, making, starting and stopping a server.
//!
//! Each text is one sentence that says what happened and what to do about it.
//! A separate variant exists only where a caller acts on it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a private PostgreSQL could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Another process holds this data directory.
    #[error(
        "the data directory {} is in use by {}: stop that one first, or choose another directory",
        data_dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory that both want.
        data_dir: PathBuf,
        /// The process that holds it, if its lock file says so.
        pid: Option<u32>,
    },
    /// No usable PostgreSQL is on this machine, and none could be fetched.
    #[error("{0}")]
    NoBinaries(String),
    /// The caller gave the start up.
    #[error("the start of PostgreSQL was broken off, because it is not wanted any more")]
    GivenUp,
    /// PostgreSQL is there, but did not do what it was asked.
    #[error("{0}")]
    Failed(String),
    /// A system call on a file or a process failed.
    #[error("cannot {doing}: {source}{}", remedy(source))]
    Io {
        /// What was tried, with the path.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// What to do about the most common errors of the system.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; make it yours, or choose another directory",
        io::ErrorKind::StorageFull => "; free some space",
        io::ErrorKind::ReadOnlyFilesystem => "; choose a directory that can be written",
        _ => "",
    }
}

impl LaunchError {
    /// Wraps an IO error with what was tried on which path.
    pub(crate) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{verb} {}", path.display());
        move |source| Self::Io { doing, source }
    }
}
