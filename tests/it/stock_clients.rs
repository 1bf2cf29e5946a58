//! Promise: stock client libraries, unmodified, from their registries, lose nothing and store nothing
//! twice, through a time of 429 and a restart of the service.
//!
//! Needs npm or pip, and their registries once; what cannot be fetched is skipped, with the reason.

mod libraries;
mod page;
mod trial;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recsys_ingest::tenants::role::Role;
use serde_json::Value;

use crate::harness::{SOON, blocking, eventually};
use libraries::{Library, NODE, PYTHON};
use trial::{Ordeal, Trial};

/// A program that posts; dropping it ends it.
struct Program {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Program {
    /// Starts it. Without its interpreter, `None`, and the reason is printed.
    fn start(library: &Library, folder: &Path, ordeal: &Ordeal) -> Option<Self> {
        let output = tempfile::NamedTempFile::new().unwrap();
        let writes = || Stdio::from(File::options().append(true).open(output.path()).unwrap());
        let child = Command::new(library.interpreter)
            .arg(library.program)
            .current_dir(folder)
            .env("INGEST_KEY", &ordeal.secret)
            .env("INGEST_URL", ordeal.url())
            .env("EVENTS", ordeal.trial.events.to_string())
            .env("PYTHONPATH", folder.join("packages"))
            .stdin(Stdio::piped())
            .stdout(writes())
            .stderr(writes())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, output }),
            Err(error) => {
                println!("skipped: there is no {}: {error}", library.interpreter);
                None
            }
        }
    }

    /// Waits until it is ready to track.
    async fn ready(&self) {
        eventually("the program to be ready", async || {
            self.said().contains("ready")
        })
        .await;
    }

    /// Lets it track half of its events.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for its end.
    async fn end(&mut self, package: &str) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                started.elapsed() < 2 * SOON,
                "{package} does not end: {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(status.success(), "{package}: {status} {}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Posts with a library to a service.
async fn post(library: &Library, trial: Trial) {
    let Some(folder) = blocking(|| library.install()) else {
        return;
    };
    let mut ordeal = Ordeal::begin(trial, Role::Ingest, Value::Null).await;
    let Some(mut program) = Program::start(library, &folder, &ordeal) else {
        return;
    };
    program.ready().await;
    ordeal.refuse().await;
    program.go_on();
    ordeal.half().await;
    program.go_on();
    ordeal.restart().await;
    program.end(library.package).await;
    ordeal.end().await;
}

/// What each run of the tests does; the trial that is asked for takes minutes.
const fn short(is_killed: bool) -> Trial {
    Trial {
        events: 200,
        refused_seconds: 4,
        is_killed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_for_node_lose_nothing_and_store_nothing_twice() {
    tokio::join!(post(&NODE[0], short(true)), post(&NODE[1], short(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_for_python_lose_nothing_and_store_nothing_twice() {
    tokio::join!(
        post(&PYTHON[0], short(false)),
        post(&PYTHON[1], short(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_client_for_pages_loses_nothing_and_stores_nothing_twice() {
    page::post(short(true), "standard").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "five minutes: cargo test --test it stock_clients -- --ignored --nocapture"]
async fn stock_clients_live_through_twenty_seconds_of_429_and_a_restart() {
    for is_killed in [false, true] {
        let trial = Trial {
            events: 1000,
            refused_seconds: 20,
            is_killed,
        };
        for library in NODE.iter().chain(&PYTHON) {
            let started = Instant::now();
            post(library, trial).await;
            println!("{} {trial:?}: {:.0?}", library.package, started.elapsed());
        }
        for strategy in ["standard", "batching"] {
            let started = Instant::now();
            page::post(trial, strategy).await;
            println!(
                "analytics-next, {strategy} {trial:?}: {:.0?}",
                started.elapsed()
            );
        }
    }
}
