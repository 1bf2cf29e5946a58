//! What the tests share: a broker, databases, processes of the program, events.

mod broker;
#[path = "../../../../tests/it/harness/cluster.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
pub mod cluster;
#[path = "../../../../tests/it/harness/database.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod database;
mod process;
#[path = "../../../../tests/it/harness/proxy.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod proxy;
mod settings;
mod wire;

pub use broker::{Brokers, broker};
pub use cluster::{Cluster, blocking};
pub use database::{Database, one};
pub use process::{Process, Sent, assert_verified, body, client, post_to};
pub use proxy::{Proxy, Wire as Postgres};
pub use settings::key;
pub use wire::Wire;

use std::time::{Duration, Instant};

/// The longest wait for something that should happen soon.
pub const SOON: Duration = Duration::from_secs(120);

/// A variable of the environment, for tests that are run on purpose.
pub fn text(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

/// The same as a number.
pub fn number(variable: &str, default: usize) -> usize {
    text(variable).map_or(default, |text| text.parse().unwrap())
}

/// Waits until `holds` returns true; fails with `what` after `SOON`.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < SOON, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
