//! Starts, stops and takes over a server.
//!
//! Invariants: on one machine at most one [`PrivatePostgres`] exists for a data directory; and a
//! server that outlived its owner is taken over or stopped, so that two never run on one cluster.
//! The server listens on a Unix socket in a directory that other users cannot enter, so there are
//! no passwords. All functions block: inside async code, call them on a blocking thread.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::binaries::{self, Binaries, Search};
use crate::cluster;
use crate::error::LaunchError;
use crate::home::Home;
use crate::identity::Identity;
use crate::options::{Options, PORT};
use crate::process::{self, LOOK_EVERY, PidFile, Postmaster};
use crate::watchdog::Watchdog;

/// Long enough for the crash recovery of a cluster that was killed under load.
const START_LIMIT: Duration = Duration::from_secs(120);
/// A longer log is truncated at the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// A running PostgreSQL server; dropping it stops it.
#[derive(Debug)]
pub struct PrivatePostgres {
    home: Home,
    identity: Identity,
    binaries: Binaries,
    database: String,
    port: u16,
    arguments: Vec<OsString>,
    ephemeral: bool,
    finished: bool,
    pid: u32,
    postmaster: Option<Postmaster>,
    watchdog: Option<Watchdog>,
}

impl PrivatePostgres {
    /// Starts a server in `options.data_dir`, or takes over the one that runs there. With
    /// `options.ephemeral` an earlier server and its data are removed first.
    ///
    /// Returns when the database answers.
    pub fn start(options: &Options) -> Result<Self, LaunchError> {
        Self::start_unless(options, &|| false)
    }

    /// As [`start`](Self::start), but stops as soon as `give_up` returns true: then no server
    /// runs, and the error is [`LaunchError::GivenUp`].
    pub fn start_unless(
        options: &Options,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Self, LaunchError> {
        Self::start_found_by(options, |search| search, give_up)
    }

    /// As [`start_unless`](Self::start_unless), with `adapt` changing where the programs are
    /// looked for.
    fn start_found_by(
        options: &Options,
        adapt: impl FnOnce(Search) -> Search,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Self, LaunchError> {
        let port = options.port()?;
        let identity = Identity::detect()?;
        let home = Home::open(&options.data_dir, &identity, port)?;
        if options.ephemeral {
            remove_leftovers(&home)?;
        }
        let identity = identity.for_cluster(&home.cluster());
        let search = adapt(Search {
            explicit: options.bin_dir.clone(),
            installed: true,
            fetch: true,
            cache_dirs: binaries::cache_dirs(options.cache_dir.as_deref(), home.data_dir()),
            major: home.cluster_major()?,
        });
        let binaries = search.find(&identity)?;
        cluster::make(&home, &binaries, &identity, options.durable)?;
        let mut this = Self {
            arguments: options.arguments(&home),
            database: options.database.clone(),
            ephemeral: options.ephemeral,
            home,
            identity,
            binaries,
            port,
            finished: false,
            pid: 0,
            postmaster: None,
            watchdog: None,
        };
        this.adopt()?;
        this.launch(give_up)?;
        Ok(this)
    }

    /// A connection string for psql, libpq and tokio-postgres alike.
    #[must_use]
    pub fn url(&self) -> String {
        let database = percent_encoded(self.database.as_bytes());
        let socket_dir = percent_encoded(self.home.socket_dir().as_os_str().as_bytes());
        let mut url = format!("postgresql://postgres@/{database}?host={socket_dir}");
        if self.port != PORT {
            write!(url, "&port={}", self.port).expect("writing to a String cannot fail");
        }
        url
    }

    /// The process id of the server, or of the last one if it is stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The server's major version, such as 18.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.binaries.major
    }

    /// Where `postgres` and `initdb` are, and often `psql`.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.binaries.dir
    }

    /// The directory of the options. As root the cluster may be elsewhere: the file
    /// `cluster-is-in` in this directory says where.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.home.data_dir()
    }

    /// The server's log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.home.log()
    }

    /// Ends all sessions, writes a checkpoint and stops.
    pub fn stop(mut self) -> Result<(), LaunchError> {
        self.finish(&|| false)
    }

    /// As [`stop`](Self::stop), but without the checkpoint as soon as `hurry` returns true: the
    /// next start recovers from the WAL.
    pub fn stop_unless(mut self, hurry: &dyn Fn() -> bool) -> Result<(), LaunchError> {
        self.finish(hurry)
    }

    /// Stops the server and deletes its cluster, socket and log.
    pub fn delete(mut self) -> Result<(), LaunchError> {
        self.ephemeral = true;
        self.finish(&|| false)
    }

    /// Stops the server as a crash does: no checkpoint, connections cut. For tests of outages.
    pub fn stop_immediate(&mut self) -> Result<(), LaunchError> {
        self.watchdog = None;
        self.postmaster
            .take()
            .map_or(Ok(()), Postmaster::stop_immediate)
    }

    /// Starts the server again, with the same data and socket; a running one is stopped first.
    pub fn restart(&mut self) -> Result<(), LaunchError> {
        self.stop_fast(&|| false)?;
        self.launch(&|| false)
    }

    /// Freezes the server and all its sessions: connections stay open and do not answer. For tests
    /// of outages.
    pub fn suspend(&mut self) -> Result<(), LaunchError> {
        self.postmaster.as_mut().map_or(Ok(()), Postmaster::suspend)
    }

    /// Continues after [`suspend`](Self::suspend).
    pub fn resume(&mut self) -> Result<(), LaunchError> {
        self.postmaster.as_mut().map_or(Ok(()), Postmaster::resume)
    }

    /// Takes over a server that outlived its owner.
    fn adopt(&mut self) -> Result<(), LaunchError> {
        let cluster = self.home.cluster();
        let Some(pid_file) = PidFile::read(&cluster) else {
            return Ok(());
        };
        let Some(mut postmaster) = Postmaster::find(&pid_file, &cluster) else {
            // PostgreSQL ignores the pid file of a dead server, but refuses to start if another
            // process has the pid now: in a container the same few numbers are used every time.
            if pid_file.names_a_live_process() {
                let path = PidFile::path(&cluster);
                fs::remove_file(&path).map_err(LaunchError::io("remove the stale", &path))?;
            }
            return Ok(());
        };
        postmaster.resume()?;
        if process::started_with(&cluster, &self.arguments) && self.home.socket(self.port).exists()
        {
            tracing::info!(
                pid = postmaster.pid(),
                "taking over the PostgreSQL that still runs here"
            );
            self.postmaster = Some(postmaster);
            return Ok(());
        }
        // It may run without fsync while the caller wants durability, or the other way round.
        tracing::info!(
            pid = postmaster.pid(),
            "stopping a PostgreSQL that runs here with other settings"
        );
        postmaster.stop_fast(&|| false)
    }

    /// Starts the server unless it runs, and waits until the database answers.
    ///
    /// After an error or a panic here, dropping `self` stops the server.
    fn launch(&mut self, give_up: &dyn Fn() -> bool) -> Result<(), LaunchError> {
        let log_from = fs::metadata(self.home.log()).map_or(0, |metadata| metadata.len());
        if give_up() {
            return Err(LaunchError::GivenUp);
        }
        if self.postmaster.is_none() {
            self.postmaster = Some(self.spawn()?);
        }
        let postmaster = self.postmaster.as_mut();
        self.pid = postmaster.map_or(0, |postmaster| postmaster.pid());
        if let Err(error) = self.wait_until_ready(log_from, give_up) {
            // The first error is the one to report.
            drop(self.stop_immediate());
            return Err(error);
        }
        if self.ephemeral {
            self.watchdog = Some(Watchdog::start(
                self.pid,
                &self.home.files(),
                self.home.share_lock()?,
            )?);
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Postmaster, LaunchError> {
        self.home.make_socket_dir(&self.identity)?;
        let log = open_log(&self.home.log())?;
        let also = log
            .try_clone()
            .map_err(LaunchError::io("open", &self.home.log()))?;
        let program = self.binaries.dir.join("postgres");
        let mut command = self.identity.command(&program);
        command
            .args(&self.arguments)
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(also));
        // In a separate process group: Ctrl-C in the terminal must not stop the server before its
        // owner has written its last rows.
        command.process_group(0);
        let child = command.spawn().map_err(LaunchError::io("run", &program))?;
        Ok(Postmaster::spawned(child))
    }

    fn wait_until_ready(
        &mut self,
        log_from: u64,
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), LaunchError> {
        let deadline = Instant::now() + START_LIMIT;
        let cluster = self.home.cluster();
        loop {
            if !self.postmaster.as_mut().is_some_and(Postmaster::is_alive) {
                return Err(self.failure("it ended before it was ready", log_from));
            }
            if give_up() {
                return Err(LaunchError::GivenUp);
            }
            let ready = PidFile::read(&cluster)
                .is_some_and(|file| file.is_ready() && file.pid() == Some(self.pid));
            let last = if ready {
                match cluster::make_database(&self.home.socket_dir(), self.port, &self.database) {
                    Ok(()) => return Ok(()),
                    // The pid file may be one of an earlier server with the same pid.
                    Err(error) if cluster::is_transient(&error) => {
                        format!("it does not let us in ({error:#})")
                    }
                    Err(error) => return Err(self.failure(&format!("{error:#}"), log_from)),
                }
            } else {
                "it is not ready".to_owned()
            };
            if Instant::now() >= deadline {
                let what = format!("{last} after {} seconds", START_LIMIT.as_secs());
                return Err(self.failure(&what, log_from));
            }
            sleep(LOOK_EVERY);
        }
    }

    fn failure(&self, what: &str, log_from: u64) -> LaunchError {
        let log = self.home.log();
        let said = last_lines(&log, log_from);
        LaunchError::Failed(format!(
            "cannot start PostgreSQL in {}: {what}; repair what its log {} says last: {said}",
            self.home.cluster().display(),
            log.display(),
        ))
    }

    fn stop_fast(&mut self, hurry: &dyn Fn() -> bool) -> Result<(), LaunchError> {
        self.watchdog = None;
        let postmaster = self.postmaster.take();
        postmaster.map_or(Ok(()), |postmaster| postmaster.stop_fast(hurry))
    }

    fn finish(&mut self, hurry: &dyn Fn() -> bool) -> Result<(), LaunchError> {
        self.finished = true;
        if self.ephemeral {
            self.stop_immediate()?;
            self.home.delete()
        } else {
            let stopped = self.stop_fast(hurry);
            self.home.remove_socket_dir();
            stopped
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.finish(&|| false)
        {
            tracing::error!(%error, "the private PostgreSQL could not be stopped");
        }
    }
}

/// Removes what a killed owner left. The watchdog does that too, but there is none between
/// [`PrivatePostgres::stop_immediate`] and the next start.
fn remove_leftovers(home: &Home) -> Result<(), LaunchError> {
    let cluster = home.cluster();
    let running = PidFile::read(&cluster).and_then(|file| Postmaster::find(&file, &cluster));
    running.map_or(Ok(()), Postmaster::stop_immediate)?;
    match fs::remove_dir_all(&cluster) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LaunchError::io("remove an earlier", &cluster)(error))
        }
        _ => Ok(()),
    }
}

fn open_log(path: &Path) -> Result<File, LaunchError> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    let log = log.map_err(LaunchError::io("open", path))?;
    // A file that exists keeps its mode when opened. The log may quote rows.
    log.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(LaunchError::io("close to others", path))?;
    let long = log
        .metadata()
        .is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX);
    if long {
        log.set_len(0).map_err(LaunchError::io("shorten", path))?;
    }
    Ok(log)
}

/// The last lines of the log after offset `from`, joined into one line.
fn last_lines(path: &Path, from: u64) -> String {
    const LINES: usize = 6;
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return "(nothing)".to_owned();
    }
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    text
}
