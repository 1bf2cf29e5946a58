//! The program as a process, and events for it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use recsys_ingest::tenants::role::Role;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::settings::{PEPPER, key};
use super::{Brokers, Database, SOON, Wire};

/// A running `recsys-ingest-kafka serve`; dropping it kills the process.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Where clients reach it.
    wire: Option<Wire>,
    http: reqwest::Client,
    _directory: TempDir,
}

/// The answer to a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub status: u16,
    /// Whether the answer says when to come again.
    pub has_retry_after: bool,
    pub body: Value,
}

impl Process {
    /// Starts a process with a role, and waits until it is ready.
    pub fn serve(brokers: &Brokers, database: &Database, prefix: &str, role: &str) -> Self {
        Self::serve_at(brokers, database.url(), prefix, role)
    }

    /// The same, with the database at this URL.
    pub fn serve_at(brokers: &Brokers, database: &str, prefix: &str, role: &str) -> Self {
        Self::serve_with(brokers, database, prefix, role, &[])
    }

    /// The same with these flags, also in place of those that tests have.
    pub fn serve_with(
        brokers: &Brokers,
        database: &str,
        prefix: &str,
        role: &str,
        more: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().display().to_string();
        let flags = [
            ("--log", "kafka"),
            ("--role", role),
            ("--kafka-brokers", &brokers.address()),
            ("--kafka-topic-prefix", prefix),
            ("--kafka-partitions", "2"),
            ("--spool-dir", &spool),
            ("--spool-disk-reserve", "0B"),
            ("--listen", "127.0.0.1:0"),
            ("--database-url", database),
            ("--api-key-hash-secret", PEPPER),
            ("--exposure-hash-salt", "salt"),
            ("--horizon-past", "20000d"),
            ("--horizon-future", "20000d"),
            ("--commit-timeout", "60s"),
            ("--shutdown-grace", "20s"),
            ("--log-format", "json"),
        ];
        let is_other = |flag: &str| more.iter().all(|(other, _)| *other != flag);
        let flags = flags.iter().filter(|(flag, _)| is_other(flag)).chain(more);
        let mut child = Command::new(env!("CARGO_BIN_EXE_recsys-ingest-kafka"))
            .arg("serve")
            .args(flags.map(|(flag, value)| format!("{flag}={value}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, shared) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = shared.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut process = Self {
            child,
            log,
            wire: None,
            http: client(),
            _directory: directory,
        };
        process.wait_for("ready");
        let listening = process.wait_for("listening");
        process.wire = Some(Wire::to(listening["address"].as_str().unwrap()));
        process
    }

    /// Waits for a message in the log; returns its line.
    pub fn wait_for(&self, message: &str) -> Value {
        let started = Instant::now();
        loop {
            let log = self.log();
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut lines = lines.filter(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|said| said.starts_with(message))
            });
            if let Some(line) = lines.next() {
                return line;
            }
            assert!(started.elapsed() < SOON, "no \"{message}\" in {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Posts a body of interactions.
    pub async fn post(&self, body: &Value, ack: &str) -> Sent {
        let address = self.address();
        let sent = post_to(&self.http, address, body, ack).await;
        sent.unwrap()
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.wire.as_ref().unwrap().address
    }

    /// Holds back all that clients send to it and it to them, or no more.
    pub fn cut(&self, is_cut: bool) {
        self.wire.as_ref().unwrap().cut(is_cut);
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Ends it as a crash would. Its disk is gone, too.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits; returns whether it ended as it should.
    pub fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A client.
pub fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.timeout(SOON).build().unwrap()
}

/// Posts a body of interactions to a process at this address.
pub async fn post_to(
    http: &reqwest::Client,
    address: SocketAddr,
    body: &Value,
    ack: &str,
) -> reqwest::Result<Sent> {
    let url = format!("http://{address}/v1/interactions?ack={ack}");
    let request = http
        .post(url)
        .header("x-api-key", key("demo", Role::Ingest));
    let answer = request.json(body).send().await?;
    let status = answer.status().as_u16();
    let has_retry_after = answer.headers().contains_key("retry-after");
    let body = answer.json().await.unwrap_or(Value::Null);
    Ok(Sent {
        status,
        has_retry_after,
        body,
    })
}

/// Runs `verify` on the ledger and the tables; fails unless they agree.
pub fn assert_verified(database: &Database) {
    let verified = Command::new(env!("CARGO_BIN_EXE_recsys-ingest-kafka"))
        .args(["verify", "--skip-spool", "--database-url", database.url()])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// A body of `count` interactions. Those of another `number` are others.
pub fn body(number: usize, count: usize) -> Value {
    let event = |at: usize| {
        json!({
            "event_id": format!("{number}-{at}"), "occurred_at": "2026-03-10T08:00:00Z",
            "event_type": "click", "item_id": "a"
        })
    };
    Value::Array((0..count).map(event).collect())
}
