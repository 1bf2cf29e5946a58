//! What the tests share: a server, databases, services, clients, rows.
//!
//! Knows nothing about a particular promise.

mod audit;
mod balancer;
mod bodies;
mod citus;
mod citus_nodes;
mod cluster;
mod database;
mod documented;
mod front;
mod generated;
mod http;
mod process;
mod proxy;
mod relay;
mod rig;
mod rows;
mod sample;
mod service;
mod settings;
mod slow_disk;
mod small_disk;
mod traffic;

pub use audit::{Audit, Stored};
pub use balancer::Balancer;
pub use bodies::{BODY_EVENTS, Mix, POISON, Template};
pub use citus::Citus;
pub use citus_nodes::{CitusNodes, citus_bin};
pub use cluster::{Cluster, blocking, cluster, pg_bin, pg_cache, psql};
pub use database::{Database, one, texts};
pub use generated::generated;
pub use http::{Client, RawConnection, Reply};
pub use process::{Process, env_file, read_until};
pub use proxy::{Cut, Proxy, Wire};
pub use relay::{Fault, Relay, Step};
pub use rig::Rig;
pub use rows::{Row, rows, rows_as_text};
pub use sample::{assigned, click, shown, uuid_of};
pub use service::Service;
pub use settings::{DEMO, OTHER, PEPPER, SALT, Settings, key};
pub use slow_disk::SlowDisk;
pub use small_disk::SmallDisk;
pub use traffic::{Plan, Sent, Told, Traffic};

use std::time::{Duration, Instant};

/// The longest wait for something that should happen soon.
pub const SOON: Duration = Duration::from_secs(120);

/// Waits until `holds` returns true; fails with `what` after `SOON`.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < SOON, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
