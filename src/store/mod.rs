//! Everything that speaks to Postgres.
//!
//! Frames come in through lanes, one writer each; verdicts go back through the
//! frames. Nothing else in the service writes SQL.

pub mod checks;
pub mod connect;
pub mod directory;
pub mod migrate;
pub mod partition;
pub mod quarantine;
pub mod seal;
pub mod verify;

mod batch;
mod copy;
mod decision;
mod error;
mod isolate;
mod keeper;
mod lane;
mod ledger;
mod opening;
mod session;
mod status;
mod timestamptz;
mod transaction;

pub use error::{Chain, Class, Trouble};
pub use keeper::{Keeper, Layout};
pub use lane::{BatchLimits, Frames, Writer};
pub use ledger::{Holder, Stream, Totals};
pub use opening::{Opening, Place};
pub use session::{Session, sessions_ended};
pub use status::{Health, LaneStatus};
