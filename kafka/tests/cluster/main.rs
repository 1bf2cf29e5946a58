//! The service on a real Kafka broker and a real PostgreSQL server.
//!
//! Needs Java 17 and Maven, which fetches the broker's jars once; where one is missing the tests are
//! skipped with a sentence. Run with `cargo test -p recsys-ingest-kafka --test cluster`. Faults in turn
//! (`faults`) and measurements (`measure`) are run on purpose, with `-- --ignored --nocapture`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, tasks end with their test"
)]

mod delivery;
mod fallback;
mod faults;
mod harness;
mod measure;
mod messages;
mod partitions;
mod runbook;
