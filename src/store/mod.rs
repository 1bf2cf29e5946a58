//! Everything that speaks to Postgres.

pub mod connect;
pub mod directory;
pub mod migrate;
pub mod partition;
