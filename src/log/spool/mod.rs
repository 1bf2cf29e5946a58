//! A write-ahead log of opaque records, with group commit.
//!
//! Guarantees: a record that was answered `Ok` is delivered to its lane's writer in each run of
//! the process, once and in the order of its stream, until it is acked. It survives kill -9 and
//! power loss. A refused record is kept as a whole or not at all. Knows nothing of HTTP,
//! SQL, events or the async runtime.
//!
//! ```text
//! Record ──flume──▶ GroupCommitter ──one write, one fdatasync──▶ segment files
//!                      │                                              │
//!                      └── Lane, while in memory ──▶ LaneReader ◀── while on disk
//!                                                        │
//!                                     Spool::ack ◀───────┘ the writer
//! ```
//!
//! Modules in reading order: the bytes ([`mod@format`]), the `disk`, what a start finds on it
//! ([`recover`]), what is written to it (`append`), and how records reach their writer
//! ([`deliver`]).

pub(crate) mod portion;

pub(crate) mod mutex;

pub(crate) mod append;
pub(crate) mod catalog;
pub mod deliver;
pub mod directory_lock;
pub(crate) mod disk;
pub mod format;
pub mod recover;
pub(crate) mod seam;
pub mod settings;
pub mod shared;
pub(crate) mod spool_id;
pub(crate) mod usage;

#[cfg(test)]
mod tests;
