//! The one place where load is refused.
//!
//! Keeps one invariant: bytes in flight, from a body's first chunk to the
//! COMMIT of its rows, never exceed the budget; what is on disk alone does not
//! count. Knows nothing of HTTP or SQL.

mod arrivals;
mod budget;
mod drain;
mod frame;
mod intake;

pub use arrivals::{Arrivals, Arriving, Spent};
pub use budget::{Budget, Loan};
pub use drain::DrainRate;
pub use frame::{Frame, Outcome, Quarantined, Verdict};
pub use intake::{Full, InMemory, Intake, stream, table_of};
