//! `recsys-ingest dev`: everything that a machine without Postgres needs.

pub mod binaries;
mod error;
mod identity;
pub mod postgres;

pub use error::LaunchError;
