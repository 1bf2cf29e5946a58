//! What the service promises, held against real PostgreSQL servers.
//!
//! One binary, so that all tests share one server; one file per promise; a
//! database per test. Needs no set-up: the server is started by the same
//! launcher as `recsys-ingest dev`, and ends with this process.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    let_underscore_drop,
    unreachable_pub,
    missing_docs,
    reason = "in a test a panic is the report, tasks end with their test, and no one imports it"
)]

mod harness;

mod contract;
mod directory;
mod duplicates;
mod formats;
mod framing;
mod privacy;
mod rejection;
mod schema;
mod sealing;
