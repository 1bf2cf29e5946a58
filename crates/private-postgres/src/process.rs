//! The server as a process: recognised, signalled, waited for.
//!
//! Invariant: a signal to the server goes only to a process that was started here and is not
//! reaped, or that runs `postgres` on the cluster directory.
//! Every wait has a limit, after which a stronger signal follows. Knows nothing of settings.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::error::LaunchError;

/// How often the state of a server that starts or stops is checked.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A checkpoint of a busy cluster on a slow disk.
const FAST_LIMIT: Duration = Duration::from_secs(60);
/// The server itself kills stubborn sessions after five seconds.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The server's first process, the parent of all its others.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pid: Pid,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// A child: until it is reaped, no other process can have its pid.
    Started(Child),
    /// Found running on this cluster; after its end another process may get its pid.
    Found(PathBuf),
}

/// What `postmaster.pid` says.
#[derive(Debug)]
pub(crate) struct PidFile {
    lines: Vec<String>,
}

impl PidFile {
    pub(crate) fn path(cluster: &Path) -> PathBuf {
        cluster.join("postmaster.pid")
    }

    pub(crate) fn read(cluster: &Path) -> Option<Self> {
        let text = fs::read_to_string(Self::path(cluster)).ok()?;
        Some(Self {
            lines: text.lines().map(|line| line.trim().to_owned()).collect(),
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.lines.first()?.parse().ok()
    }

    /// The eighth line is the server's state.
    pub(crate) fn is_ready(&self) -> bool {
        self.lines.get(7).is_some_and(|state| state == "ready")
    }

    pub(crate) fn names_a_live_process(&self) -> bool {
        self.process().is_some_and(is_alive)
    }

    fn process(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid()?).ok()?)
    }
}

impl Postmaster {
    pub(crate) fn spawned(child: Child) -> Self {
        Self {
            pid: Pid::from_child(&child),
            origin: Origin::Started(child),
        }
    }

    /// The server that `pid_file` names, if it is alive and runs on `cluster`.
    pub(crate) fn find(pid_file: &PidFile, cluster: &Path) -> Option<Self> {
        let pid = pid_file.process()?;
        let mut found = Self {
            pid,
            origin: Origin::Found(cluster.to_owned()),
        };
        found.is_alive().then_some(found)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Reaps a child that has ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        match &mut self.origin {
            Origin::Started(child) => child.try_wait().is_ok_and(|status| status.is_none()),
            Origin::Found(cluster) => is_alive(self.pid) && serves(self.pid, cluster),
        }
    }

    /// Stops with a checkpoint; without one after a time limit, or as soon as `hurry` returns
    /// true.
    pub(crate) fn stop_fast(mut self, hurry: &dyn Fn() -> bool) -> Result<(), LaunchError> {
        self.resume()?;
        self.signal(Signal::INT)?;
        if self.ended_within(FAST_LIMIT, hurry) {
            return Ok(());
        }
        tracing::warn!(pid = self.pid(), "stopping PostgreSQL without a checkpoint");
        self.stop_immediate()
    }

    /// Stops without a checkpoint; kills after a time limit.
    pub(crate) fn stop_immediate(mut self) -> Result<(), LaunchError> {
        self.resume()?;
        self.signal(Signal::QUIT)?;
        if self.ended_within(IMMEDIATE_LIMIT, &|| false) {
            return Ok(());
        }
        let children = children_of(self.pid);
        self.signal(Signal::KILL)?;
        children
            .into_iter()
            .try_for_each(|pid| signal(pid, Signal::KILL))?;
        if self.ended_within(KILL_LIMIT, &|| false) {
            return Ok(());
        }
        Err(LaunchError::Failed(format!(
            "PostgreSQL (process {}) is still there after being killed: it waits for a disk that \
             does not answer; repair that, or restart the machine",
            self.pid()
        )))
    }

    pub(crate) fn suspend(&mut self) -> Result<(), LaunchError> {
        // The parent first, so that no session starts while the others are being stopped.
        // Each session leads a separate process group, so a signal to the server's group misses it.
        self.signal(Signal::STOP)?;
        children_of(self.pid)
            .into_iter()
            .try_for_each(|pid| signal(pid, Signal::STOP))
    }

    pub(crate) fn resume(&mut self) -> Result<(), LaunchError> {
        children_of(self.pid)
            .into_iter()
            .try_for_each(|pid| signal(pid, Signal::CONT))?;
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, which: Signal) -> Result<(), LaunchError> {
        if self.is_alive() {
            signal(self.pid, which)
        } else {
            Ok(())
        }
    }

    /// Waits for its end, up to `limit` or until `hurry` returns true.
    fn ended_within(&mut self, limit: Duration, hurry: &dyn Fn() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline || hurry() {
                return false;
            }
            sleep(LOOK_EVERY);
        }
        true
    }
}

/// Whether the running server of `cluster` was started with exactly these arguments.
pub(crate) fn started_with(cluster: &Path, arguments: &[OsString]) -> bool {
    let mut line = Vec::new();
    for argument in arguments {
        line.extend_from_slice(b" \"");
        line.extend_from_slice(argument.as_bytes());
        line.push(b'"');
    }
    let opts = fs::read(cluster.join("postmaster.opts")).unwrap_or_default();
    opts.trim_ascii_end().ends_with(&line)
}

/// Whether the process is a `postgres` that was told to use this directory.
fn serves(pid: Pid, cluster: &Path) -> bool {
    let arguments = command_line(pid);
    let mut needle = b"-D\0".to_vec();
    needle.extend_from_slice(cluster.as_os_str().as_bytes());
    needle.push(0);
    let has = |words: &[u8]| arguments.windows(words.len()).any(|part| part == words);
    has(b"postgres\0") && has(&needle)
}

/// The arguments, each ended by a zero byte.
#[cfg(target_os = "linux")]
fn command_line(pid: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: Pid) -> Vec<u8> {
    // `ps` separates arguments by spaces, so a server on a path with a space is not recognised:
    // PostgreSQL's own lock then refuses the second start.
    let mut text = ps(&[
        "-ww",
        "-o",
        "command=",
        "-p",
        &pid.as_raw_nonzero().to_string(),
    ]);
    text.iter_mut()
        .filter(|byte| byte.is_ascii_whitespace())
        .for_each(|byte| *byte = 0);
    text
}

fn signal(pid: Pid, signal: Signal) -> Result<(), LaunchError> {
    match kill_process(pid, signal) {
        // A process that has ended needs no signal.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(LaunchError::Io {
            doing: format!("signal PostgreSQL (process {})", pid.as_raw_nonzero()),
            source: error.into(),
        }),
    }
}

/// A zombie counts as dead: where orphans are not reaped (many containers) it stays for ever.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let exists = !matches!(test_kill_process(pid), Err(Errno::SRCH));
    exists && state_and_parent(pid).is_none_or(|(state, _)| state != 'Z')
}

#[cfg(target_os = "linux")]
fn children_of(parent: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let is_child =
        |pid: &Pid| state_and_parent(*pid).is_some_and(|(_, its)| Some(its) == Some(parent));
    pids.filter(is_child).collect()
}

#[cfg(target_os = "linux")]
fn state_and_parent(pid: Pid) -> Option<(char, Pid)> {
    let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name of the program is in parentheses and may contain anything, parentheses too.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)?))
}

#[cfg(not(target_os = "linux"))]
fn children_of(parent: Pid) -> Vec<Pid> {
    let text = ps(&["-A", "-o", "pid=,ppid="]);
    let child = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse::<i32>);
        let (pid, its) = (fields.next()?.ok()?, fields.next()?.ok()?);
        (its == parent.as_raw_nonzero().get()).then(|| Pid::from_raw(pid))?
    };
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(child)
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn state_and_parent(pid: Pid) -> Option<(char, Pid)> {
    let text = ps(&[
        "-o",
        "state=,ppid=",
        "-p",
        &pid.as_raw_nonzero().to_string(),
    ]);
    let text = String::from_utf8_lossy(&text);
    let mut fields = text.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)?))
}

#[cfg(not(target_os = "linux"))]
fn ps(arguments: &[&str]) -> Vec<u8> {
    std::process::Command::new("ps")
        .args(arguments)
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default()
}
