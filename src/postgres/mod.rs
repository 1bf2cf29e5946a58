//! Connections to PostgreSQL, what its errors mean, the schema, and whether a database is fit.
//!
//! Knows nothing of batches, partitions and tenants.

pub(crate) mod copy;
pub(crate) mod ident;

pub mod checks;
pub mod connect;
pub mod error;
pub mod migrate;
pub mod session;
pub mod sqlstate;
pub(crate) mod timestamptz;
