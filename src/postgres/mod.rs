//! Connections to PostgreSQL, the meaning of its errors, the schema, and the checks of a database.
//!
//! Does not store batches, create partitions or read tenants.

pub(crate) mod citus;
pub(crate) mod ident;
pub(crate) mod patience;

pub mod advisory_lock;
pub mod checks;
pub mod connect;
pub mod copy;
pub mod error;
mod key_index;
pub mod migrate;
pub mod session;
pub mod sqlstate;
pub(crate) mod timestamptz;
