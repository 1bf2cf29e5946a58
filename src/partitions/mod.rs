//! Partitions: which there are, which are missing, and how they come to be.
//!
//! Invariant: what exists is read from the bounds in Postgres' catalog, never
//! from names: operators, pg_partman and the suite's own helper make partitions
//! too. And nothing here takes a lock on a parent table that a reader or a COPY
//! would wait for.
//!
//! Knows no rows and no queue: it neither decides which events wait for a
//! partition nor removes old ones.

pub(crate) mod bound;
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
