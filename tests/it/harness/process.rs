//! The program as a process, with real signals.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::Client;
use super::{SOON, Settings};

const PROGRAM: &str = env!("CARGO_BIN_EXE_recsys-ingest");

/// A running `recsys-ingest`; dropping it kills the process.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    answer: Arc<Mutex<String>>,
    _spool: Option<Arc<TempDir>>,
}

impl Process {
    /// Runs `serve` and waits until it is ready.
    pub fn serve(settings: &Settings) -> (Self, Client) {
        let mut process = Self::run(settings.arguments());
        process._spool = Some(Arc::clone(&settings.spool));
        let address = process.ready();
        (process, Client::new(address))
    }

    /// Runs `serve` and waits until it listens, ready or not.
    pub fn listen(settings: &Settings) -> (Self, Client) {
        let mut process = Self::run(settings.arguments());
        process._spool = Some(Arc::clone(&settings.spool));
        let address = process.listening();
        (process, Client::new(address))
    }

    /// Runs any command, with its log as JSON unless the arguments name a format.
    pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::start(Stdio::piped(), Command::new(PROGRAM), arguments)
    }

    /// As `run`, with more environment variables.
    pub fn run_with(
        arguments: impl IntoIterator<Item = OsString>,
        environment: Vec<(&'static str, OsString)>,
    ) -> Self {
        let mut command = Command::new(PROGRAM);
        command.envs(environment);
        Self::start(Stdio::piped(), command, arguments)
    }

    /// Runs any command with `stderr` as its standard error. Only a `Stdio::piped()` is collected
    /// as its log.
    pub fn logging_to(stderr: Stdio, arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::start(stderr, Command::new(PROGRAM), arguments)
    }

    /// Runs any command with a limit on open files.
    pub fn run_with_files(files: u32, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut shell = Command::new("/bin/sh");
        let script = format!("ulimit -n {files}; exec \"$@\"");
        shell.args(["-c", &script, "sh", PROGRAM]);
        Self::start(Stdio::piped(), shell, arguments)
    }

    /// Runs any command with a clock that is off by `seconds`; `None` if libfaketime is missing.
    pub fn run_off(seconds: i64, arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let library = glob_library("libfaketimeMT.so.1")?;
        let mut command = Command::new(PROGRAM);
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME", format!("{seconds:+}s"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Some(Self::start(Stdio::piped(), command, arguments))
    }

    fn start(
        stderr: Stdio,
        mut command: Command,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let names_format =
            |argument: &OsString| argument.to_string_lossy().starts_with("--log-format");
        if !arguments.iter().any(names_format) {
            command.args(&arguments).args(["--log-format", "json"]);
        } else {
            command.args(&arguments);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let (log, answer) = (Arc::default(), Arc::default());
        if let Some(stderr) = child.stderr.take() {
            let shared = Arc::clone(&log);
            std::thread::spawn(move || collect(stderr, &shared));
        }
        let (stdout, shared) = (child.stdout.take().unwrap(), Arc::clone(&answer));
        std::thread::spawn(move || collect(stdout, &shared));
        Self {
            child,
            log,
            answer,
            _spool: None,
        }
    }

    /// Waits until the service is ready; returns its address.
    pub fn ready(&self) -> SocketAddr {
        self.message("ready");
        self.listening()
    }

    /// Waits until the service listens; returns its address.
    pub fn listening(&self) -> SocketAddr {
        let listening = self.message("listening");
        listening["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits for a message in the log; returns its line.
    pub fn message(&self, message: &str) -> Value {
        let started = Instant::now();
        loop {
            let log = self.log();
            let mut lines = log
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            if let Some(line) = lines.find(|line: &Value| line["message"] == message) {
                return line;
            }
            assert!(
                started.elapsed() < SOON,
                "no '{message}' in the log:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the process has written to standard error.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What the process has written to standard output.
    pub fn answer(&self) -> String {
        self.answer.lock().unwrap().clone()
    }

    /// The JSON line that `serve` prints at its end.
    pub fn report(&self) -> Value {
        let answer = self.answer();
        serde_json::from_str(answer.trim()).unwrap_or_else(|e| panic!("{e}: '{answer}'"))
    }

    /// A field of /proc/PID/status, such as `VmHWM`, in bytes.
    pub fn memory(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let kib = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .unwrap_or_else(|| panic!("no {line} in\n{status}"));
        kib.parse::<u64>().unwrap() * 1024
    }

    /// SIGKILL: the process cannot clean up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until the process ends.
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The last lines may still be in the pipe.
                std::thread::sleep(Duration::from_millis(20));
                return status;
            }
            assert!(started.elapsed() < SOON, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the process ends; returns how long that took.
    pub fn wait_timed(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        (self.wait(), started.elapsed())
    }

    /// Sends SIGTERM and waits until the process ends.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Finds a library of libfaketime in the directories of Debian's multiarch layout, or directly
/// below /usr/lib.
fn glob_library(name: &str) -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu", "."];
    let paths = places.map(|place| {
        Path::new("/usr/lib")
            .join(place)
            .join("faketime")
            .join(name)
    });
    let found = paths.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("skipped: there is no {name} to shift a clock with");
    }
    found
}

fn collect(from: impl Read, into: &Mutex<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let mut log = into.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
    }
}

/// Reads lines until one contains `words`; a thread drains the rest.
pub fn read_until(from: impl Read + Send + 'static, words: &str) -> String {
    let mut lines = BufReader::new(from).lines();
    let mut log = String::new();
    for line in lines.by_ref().map_while(Result::ok) {
        log.push_str(&line);
        log.push('\n');
        if line.contains(words) {
            std::thread::spawn(move || lines.for_each(drop));
            return log;
        }
    }
    panic!("no '{words}' in the log:\n{log}");
}

/// The variables of a file such as `dev.env`, as a shell reads them.
pub fn env_file(path: &Path) -> HashMap<String, String> {
    let script = r#"set -a; . "$1"; env -0"#;
    let output = Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .arg(path)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split('\0')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
