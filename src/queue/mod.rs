//! The one place where load is refused.
//!
//! Keeps one invariant: bytes in flight, from a body's first chunk to the
//! COMMIT of its rows, never exceed the budget. Knows nothing of HTTP or SQL.

mod budget;
mod frame;
mod intake;

pub use budget::{Budget, Loan};
pub use frame::{Failure, Frame, Outcome, Quarantined, Verdict};
pub use intake::{Full, Intake, Lanes};
