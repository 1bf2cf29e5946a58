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

mod disk;
mod instance;
mod lock;
mod openings;
mod repair;
mod scan;

mod catalog;
mod gauges;
mod settings;
mod shared;
mod space;
mod stall;

mod commit;
mod entry;
mod log;
mod segment;
mod spares;

mod lane;
mod open;
mod pace;
mod reader;

pub use commit::Committer;
pub use entry::{Entry, Refused};
pub use gauges::Fill;
pub use lane::Spooled;
pub use open::{Account, Opened, StreamAccount, account, fork, history, inspect, open};
pub use openings::{History, Vouched};
pub use reader::{LaneReader, Next};
pub use scan::{Damage, DamageKind, Ending, ScanReport, SegmentReport, Unreadable};
pub use settings::Settings;
pub use shared::Spool;
pub use space::Shortage;

#[cfg(test)]
mod tests;
