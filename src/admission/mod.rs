//! Admission: the one place where load is refused.
//!
//! Keeps one invariant: bytes in flight, from a body's first piece to the COMMIT of its rows, never
//! exceed the memory limit. Rows that are only on disk do not count. Knows nothing of HTTP or SQL.

pub mod admit;
pub(crate) mod arrivals;
pub(crate) mod memory;
pub(crate) mod rate_limit;
pub mod record;
mod shares;
mod spool_shares;
