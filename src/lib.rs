//! recsys-ingest: recommendation exposures and interactions, over HTTP, into partitioned Postgres
//! tables.
//!
//! Modules are in the order in which an event meets them. ARCHITECTURE.md says which of them may
//! import which.

pub mod cli;
pub mod config;
pub mod service;

pub(crate) mod ship;

pub mod http;

pub mod event;

pub mod admission;

pub mod log;

pub(crate) mod writer;

pub mod partitions;

pub mod tenants;

pub mod accounts;

pub mod jobs;

pub mod postgres;

mod backoff;
pub mod clock;
pub(crate) mod drain_rate;
pub(crate) mod exposition;
pub mod finding;
pub mod logging;
pub mod metrics;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
