//! A write-ahead log of opaque frames, with group commit.
//!
//! Promises: a frame whose entry was answered `Ok` is given to its lane's
//! writer, in the order of its stream, once in each life of the process, until
//! it is retired; through kill -9 and power loss. What is refused is never
//! half kept. Knows nothing of HTTP, SQL, events or async runtimes.
//!
//! ```text
//! Record ──flume──▶ Committer ──one write, one fdatasync──▶ segment files
//!                      │                                        │
//!                      └── Lane, while it keeps up ──▶ LaneReader ◀── else
//!                                                          │
//!                                      Spool::retire ◀─────┘ the writer
//! ```
//!
//! Modules in reading order: the bytes ([`mod@format`]), the `disk`, what is found on it
//! (`scan`, `repair`), what is written to it (`segment`, `log`, `commit`), and
//! the way out (`lag`, `lane`, `reader`).

pub(crate) mod portion;

pub(crate) mod mutex;

pub(crate) mod append;
pub(crate) mod catalog;
pub mod deliver;
pub(crate) mod directory_lock;
pub(crate) mod disk;
pub mod format;
pub mod recover;
pub mod settings;
pub mod shared;
pub(crate) mod spool_id;
pub(crate) mod usage;

#[cfg(test)]
mod tests;
