//! What the service promises, held against real PostgreSQL servers.
//!
//! One binary, so that all tests share one server; one file per promise; a
//! database per test. Needs no set-up: the server is started by the same
//! launcher as `recsys-ingest dev`, and ends with this process.
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    reason = "in a test a panic is the report, tasks end with their test, numbers are small, and no one imports it"
)]

mod harness;

mod accounting;
mod attacks;
mod backpressure;
mod batching;
mod contract;
mod crash;
mod delivery;
mod dev;
mod directory;
mod doors;
mod duplicates;
mod formats;
mod framing;
mod jsonb;
mod malformed;
mod outage;
mod partitions;
mod poison;
mod privacy;
mod quarantine;
mod readme;
mod rejection;
mod restart;
mod roundtrip;
mod schema;
mod sealing;
mod shutdown;
mod soak;
mod unreadable;
