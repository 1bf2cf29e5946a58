//! What the tests share: a broker, databases, processes of the program, events.

mod broker;
#[path = "../../../../tests/it/harness/cluster.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod cluster;
#[path = "../../../../tests/it/harness/database.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod database;
mod process;
mod settings;

pub use broker::{Broker, broker};
pub use database::{Database, one};
pub use process::{Process, assert_verified, body};

use std::time::{Duration, Instant};

/// The longest wait for something that should happen soon.
pub const SOON: Duration = Duration::from_secs(120);

/// Waits until `holds` returns true; fails with `what` after `SOON`.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < SOON, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
