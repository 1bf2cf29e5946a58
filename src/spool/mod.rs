//! A write-ahead log of opaque frames, with group commit.
//!
//! Promises: a frame whose entry was answered `Ok` is given to its lane's
//! writer, in the order of its stream, once in each life of the process, until
//! it is retired; through kill -9 and power loss. What is refused is never
//! half kept. Knows nothing of HTTP, SQL, events or async runtimes.
//!
//! ```text
//! Entry ──flume──▶ Committer ──one write, one fdatasync──▶ segment files
//!                      │                                        │
//!                      └── Lane, while it keeps up ──▶ LaneReader ◀── else
//!                                                          │
//!                                      Spool::retire ◀─────┘ the writer
//! ```
//!
//! Modules in reading order: the bytes ([`mod@format`]), the `disk`, what is found on it
//! (`scan`, `repair`), what is written to it (`segment`, `log`, `commit`), and
//! the way out (`pace`, `lane`, `reader`).

pub mod format;

pub(crate) mod disk;
pub(crate) mod instance;
pub(crate) mod lock;
pub(crate) mod openings;
pub(crate) mod repair;
pub(crate) mod scan;

pub(crate) mod catalog;
pub(crate) mod gauges;
pub mod settings;
pub mod shared;
pub(crate) mod space;
pub(crate) mod stall;

pub(crate) mod commit;
pub mod entry;
pub(crate) mod log;
pub(crate) mod segment;
pub(crate) mod spares;

pub(crate) mod lane;
pub mod open;
pub(crate) mod pace;
pub mod reader;

#[cfg(test)]
mod tests;
