//! Everything that speaks to Postgres.
//!
//! Frames come in through lanes, one writer each; verdicts go back through the
//! frames. Nothing else in the service writes SQL.

pub mod connect;
pub mod directory;
pub mod migrate;
pub mod partition;

mod batch;
mod copy;
mod error;
mod keeper;
mod lane;
mod quarantine;
mod session;
mod transaction;

pub use error::{Chain, Class, Trouble};
pub use keeper::{Keeper, Layout};
pub use lane::{BatchLimits, Health, LaneHealth, Writer};
pub use session::Session;
