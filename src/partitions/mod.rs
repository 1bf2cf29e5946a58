//! Partitions: which exist, which are missing, and how they are created and sealed.
//!
//! Invariant: what exists is read from the bounds in the Postgres catalog, never from names,
//! because operators, pg_partman and the suite's own helper also create partitions. Nothing here
//! takes a lock on a parent table that conflicts with a reader or a COPY.
//!
//! Never removes a partition. The lanes quarantine rows that have no partition; `maintain`
//! retries those.

pub mod coverage;

pub(crate) mod budget;
pub(crate) mod calendar;
pub mod catalog;
pub mod create;
pub mod error;
pub(crate) mod history;
pub mod indexes;
pub(crate) mod leaf;
pub(crate) mod literal;
pub(crate) mod maintain;
pub mod range;
pub mod seal;
