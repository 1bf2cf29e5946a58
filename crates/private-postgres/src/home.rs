//! The data directory of a server: its lock, and where cluster, socket and log are.
//!
//! Invariants: a [`Home`] holds the lock of its data directory; and a data directory leads to the
//! same cluster at every start. As root the cluster may have to be in another directory, which the
//! user who runs it can enter: the file `cluster-is-in` in the data directory says where.
//! Knows nothing of the programs.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use sha2::{Digest as _, Sha256};

use crate::error::LaunchError;
use crate::identity::{Identity, is_root};
use crate::process::{self, LOOK_EVERY};

/// The limit of macOS, the smallest; Linux has 108. One byte is the terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 104 - 1;

/// The 30 seconds that a watchdog waits for a server to end, and time for deleting its files.
const CLEARING_LIMIT: Duration = Duration::from_secs(40);

/// The file that names the directory of a cluster that is not in the data directory.
const NOTE: &str = "cluster-is-in";

/// Parents of clusters that cannot be in their data directory. Both survive a restart of the
/// machine.
const BASES: [&str; 2] = ["/var/lib/recsys-ingest", "/var/tmp/recsys-ingest"];

/// A data directory, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    data_dir: PathBuf,
    /// The parent of the cluster: the data directory, or the one that `cluster-is-in` names.
    place: PathBuf,
    socket_dir: PathBuf,
    lock: File,
}

impl Home {
    /// Makes the directory if it is missing, takes its lock and finds where the cluster is.
    pub(crate) fn open(
        data_dir: &Path,
        identity: &Identity,
        port: u16,
    ) -> Result<Self, LaunchError> {
        make_data_dir(data_dir, identity)?;
        let data_dir = fs::canonicalize(data_dir).map_err(LaunchError::io("find", data_dir))?;
        let lock = take_lock(&data_dir)?;
        let place = find_place(&data_dir, identity)?;
        let inside = place.join("socket");
        // To libpq, tokio-postgres and the server, a comma separates hosts.
        let fits = socket_in(&inside, port).as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
        let plain = !inside
            .as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| b",\"".contains(byte));
        let socket_dir = if fits && plain {
            inside
        } else {
            PathBuf::from(format!("/tmp/recsys-ingest-{}", short_hash(&data_dir)))
        };
        Ok(Self {
            data_dir,
            place,
            socket_dir,
            lock,
        })
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.place.join("cluster")
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.socket_dir.clone()
    }

    pub(crate) fn socket(&self, port: u16) -> PathBuf {
        socket_in(&self.socket_dir, port)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir.join("postgres.log")
    }

    /// The major version of the cluster, if there is one.
    pub(crate) fn cluster_major(&self) -> Result<Option<u32>, LaunchError> {
        let path = self.cluster().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| {
                LaunchError::Failed(format!(
                    "{} does not name a PostgreSQL version: the cluster is damaged; restore it, or \
                     delete {} to begin an empty one",
                    path.display(),
                    self.cluster().display()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LaunchError::io("read", &path)(error)),
        }
    }

    /// Makes the directory of the socket unless it exists. Called at every start: in /tmp it may
    /// have been removed.
    pub(crate) fn make_socket_dir(&self, identity: &Identity) -> Result<(), LaunchError> {
        let dir = &self.socket_dir;
        if let Ok(metadata) = fs::symlink_metadata(dir) {
            let mode = metadata.permissions().mode() & 0o777;
            let ours = metadata.is_dir() && metadata.uid() == identity.owner_uid() && mode == 0o700;
            if !ours {
                return Err(LaunchError::Failed(format!(
                    "{} is in the way of PostgreSQL's socket: remove it, or choose another data directory",
                    dir.display()
                )));
            }
            return Ok(());
        }
        make_owned_dir(dir, identity)
    }

    /// Removes the directory of the socket, which may be in /tmp.
    pub(crate) fn remove_socket_dir(&self) {
        // Fails if it holds a file, and then it stays.
        drop(fs::remove_dir(&self.socket_dir));
    }

    /// The lock file for a child: the lock is held until both have closed it.
    pub(crate) fn share_lock(&self) -> Result<Stdio, LaunchError> {
        self.lock
            .try_clone()
            .map(Stdio::from)
            .map_err(LaunchError::io("share the lock of", &self.data_dir))
    }

    /// All files and directories of the server, except for the data directory and its lock.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.socket_dir.clone(), self.cluster(), self.log()];
        if self.place != self.data_dir {
            files.extend([self.place.clone(), self.data_dir.join(NOTE)]);
        }
        files
    }

    pub(crate) fn delete(&self) -> Result<(), LaunchError> {
        for path in self.files() {
            let is_dir = path.is_dir();
            let gone = if is_dir {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match gone {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(LaunchError::io("delete", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Closing the file is not enough: between fork and exec, a child that another thread starts
        // has a copy of it, and the next start would find the lock held by this process.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, data_dir = %self.data_dir.display(), "cannot unlock the data directory");
        }
    }
}

/// Makes a directory that only the user who runs PostgreSQL can enter, and root.
///
/// Its parents are made as usual. One that exists stays as it is.
pub fn make_private_dir(path: &Path) -> Result<(), LaunchError> {
    if path.is_dir() {
        return Ok(());
    }
    make_data_dir(path, &Identity::detect()?)
}

/// Makes a directory that only `identity` can enter, and root.
pub(crate) fn make_owned_dir(path: &Path, identity: &Identity) -> Result<(), LaunchError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(LaunchError::io("make", path))?;
    identity.give(path)
}

/// Makes the data directory unless it exists, closed to other users from the start: it holds the
/// server's log, which may quote rows.
fn make_data_dir(path: &Path, identity: &Identity) -> Result<(), LaunchError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(LaunchError::io("make the data directory", parent))?;
    }
    match make_owned_dir(path, identity) {
        // Another process may have made it at the same time.
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

fn socket_in(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

fn take_lock(data_dir: &Path) -> Result<File, LaunchError> {
    let path = data_dir.join("lock");
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path);
    let mut lock = open.map_err(LaunchError::io("open", &path))?;
    let deadline = Instant::now() + CLEARING_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(LaunchError::io("lock", &path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let owner = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok());
        let alive = owner.and_then(Pid::from_raw).is_none_or(process::is_alive);
        if alive || Instant::now() >= deadline {
            let pid = owner.and_then(|pid| u32::try_from(pid).ok());
            return Err(LaunchError::InUse {
                data_dir: data_dir.to_owned(),
                pid,
            });
        }
        // The owner is dead, and its watchdog is deleting the files.
        sleep(LOOK_EVERY);
    }
    let write = |lock: &mut File| {
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())
    };
    write(&mut lock).map_err(LaunchError::io("write", &path))?;
    Ok(lock)
}

/// The parent of the cluster: the one in `cluster-is-in`, the data directory, or a new one.
fn find_place(data_dir: &Path, identity: &Identity) -> Result<PathBuf, LaunchError> {
    let note = data_dir.join(NOTE);
    if let Ok(text) = fs::read_to_string(&note) {
        let place = PathBuf::from(text.trim());
        if place.is_dir() {
            return Ok(place);
        }
        return Err(LaunchError::Failed(format!(
            "the cluster of {} was in {}, which is gone: restore it, or delete {} to begin an empty one",
            data_dir.display(),
            place.display(),
            note.display()
        )));
    }
    if data_dir.join("cluster").exists() || identity.can_enter(data_dir) {
        return Ok(data_dir.to_owned());
    }
    for base in BASES.map(Path::new) {
        let place = base.join(short_hash(data_dir));
        if make_open_dir(base) && make_open_dir(&place) && identity.can_enter(&place) {
            write_privately(&note, &format!("{}\n", place.display()))
                .map_err(LaunchError::io("write", &note))?;
            tracing::info!(place = %place.display(), "the data directory is closed to the user who runs PostgreSQL: its cluster goes elsewhere");
            return Ok(place);
        }
    }
    Err(LaunchError::Failed(format!(
        "{} cannot enter {}, and no directory could be made in {} instead: choose a data directory \
         that this user can reach, such as one in /srv or /var/tmp",
        identity.describe(),
        data_dir.display(),
        BASES.join(" or ")
    )))
}

fn write_privately(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// Makes a directory that only root can change and all users can enter.
fn make_open_dir(path: &Path) -> bool {
    let made = DirBuilder::new().mode(0o755).create(path);
    let metadata = fs::symlink_metadata(path);
    // In /var/tmp another user may have made it before.
    let ours = metadata.is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == 0 && is_root());
    // The umask may have closed it to other users.
    let opened =
        made.is_err() || fs::set_permissions(path, fs::Permissions::from_mode(0o755)).is_ok();
    ours && opened
}

/// 64 bits: short enough for socket paths, and enough to tell the data directories of one machine
/// apart.
fn short_hash(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..8])
}
