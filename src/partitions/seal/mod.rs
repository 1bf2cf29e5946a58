//! Sealing: the indexes of a partition whose time is over, built in bulk.
//!
//! A hot partition carries its key only, so that a row costs little. Once its
//! time is over, and a grace for what comes late, it gets the suite's indexes,
//! one `CREATE INDEX CONCURRENTLY` at a time, and its statistics.
//!
//! Invariant: what is left to do is read from the catalog before every step,
//! under a lock that one sealer in a database holds. So there is no state that a
//! crash could lose, an index that was not finished is dropped and built again,
//! and any number of instances may try at once.
//!
//! Rows that come in during or after the sealing are inserted like any other;
//! they pay for all indexes that are there.

pub mod lock;
pub mod plan;
pub(crate) mod pressure;
pub(crate) mod sealer;
pub mod work;
