//! The program itself, as a process with real signals.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::Client;
use super::{SOON, Settings};

/// A running `recsys-ingest`; killed if a test forgets it.
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

    /// Runs any command, with its log as JSON.
    pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::logging_to(Stdio::piped(), arguments)
    }

    /// Runs any command with its log going elsewhere; a pipe is read.
    pub fn logging_to(stderr: Stdio, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
            .args(arguments)
            .args(["--log-format", "json"])
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

    /// Waits until events are accepted; returns where.
    pub fn ready(&self) -> SocketAddr {
        self.message("ready");
        self.listening()
    }

    /// Waits until it listens; returns where.
    pub fn listening(&self) -> SocketAddr {
        let listening = self.message("listening");
        listening["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits for a line of the log.
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

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it has written to standard output.
    pub fn answer(&self) -> String {
        self.answer.lock().unwrap().clone()
    }

    /// The line of JSON with which `serve` ends.
    pub fn report(&self) -> Value {
        let answer = self.answer();
        serde_json::from_str(answer.trim()).unwrap_or_else(|e| panic!("{e}: '{answer}'"))
    }

    /// A line of its memory's accounts in the kernel, such as `VmHWM`, in bytes.
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

    /// Kill -9: no last words.
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

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The last lines may still be on their way through the pipe.
                std::thread::sleep(Duration::from_millis(20));
                return status;
            }
            assert!(started.elapsed() < SOON, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, and how long that took.
    pub fn wait_timed(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        (self.wait(), started.elapsed())
    }

    /// SIGTERM, and its end.
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

fn collect(from: impl Read, into: &Mutex<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let mut log = into.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
    }
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
