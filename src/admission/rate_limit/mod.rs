//! Limits on events and bytes a second, for tenants, keys and client addresses.
//!
//! Knows nothing of HTTP or of who sets the limits: callers pass rates, keys and costs. See
//! `docs/decisions/0017-limits.md`.

pub mod charge;
pub(crate) mod gcra;
pub(crate) mod guess;
pub mod keyed;
