//! Sealing: the indexes of a partition that gets no more current rows, built in bulk.
//!
//! A hot partition has only its key, so that an insert is cheap. After the end of its range and a
//! grace for late rows it gets the suite's indexes, one `CREATE INDEX CONCURRENTLY` at a time, and
//! its statistics.
//!
//! Invariant: the remaining work is read from the catalog before every step, under a lock that one
//! sealer per database holds. So a crash loses no state, an unfinished index is dropped and built
//! again, and any number of processes may try at once.
//!
//! Rows that arrive during or after sealing are inserted as usual, at the cost of all existing
//! indexes.

pub mod lock;
pub mod plan;
pub(crate) mod pressure;
pub(crate) mod sealer;
pub mod work;
