//! recsys-ingest: recommendation exposures and interactions, over HTTP, into
//! partitioned Postgres tables.
//!
//! Modules stand in the order in which an event meets them. Imports run one
//! way, downwards: see ARCHITECTURE.md.

pub mod cli;
pub mod config;
pub mod service;

pub mod api;
pub mod event;
pub mod queue;
pub mod spool;
pub mod store;

pub mod logging;
pub mod metrics;
mod open_files;
