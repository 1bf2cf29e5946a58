//! Partitions: which exist, which are missing, and how they are created and sealed.
//!
//! Invariant: what exists is read from the bounds in the Postgres catalog, never from names,
//! because operators, pg_partman and the suite's own helper also create partitions. Nothing here
//! takes a lock on a parent table that conflicts with a reader or a COPY.
//!
//! Never removes a partition, except for an empty DEFAULT partition on an operator's word (`lean`);
//! retention is `accounts::retention`, as it books what it removes. The lanes quarantine rows that
//! have no partition; `maintain` retries those.

pub mod coverage;

mod attach;
pub(crate) mod budget;
pub(crate) mod calendar;
pub mod catalog;
pub mod create;
pub(crate) mod defaults;
pub(crate) mod deferred;
pub(crate) mod empty;
pub mod error;
pub(crate) mod history;
pub mod indexes;
pub(crate) mod kept;
pub mod layout;
pub(crate) mod leaf;
pub mod lean;
pub(crate) mod literal;
pub mod maintain;
pub mod range;
pub mod seal;
pub(crate) mod settle;
pub(crate) mod shortage;
pub(crate) mod tend;
