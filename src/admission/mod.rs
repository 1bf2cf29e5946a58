//! The one place where load is refused.
//!
//! Keeps one invariant: bytes in flight, from a body's first chunk to the
//! COMMIT of its rows, never exceed the budget; what is on disk alone does not
//! count. Knows nothing of HTTP or SQL.

pub mod admit;
pub(crate) mod arrivals;
pub(crate) mod memory;
pub mod record;
