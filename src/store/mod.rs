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

pub(crate) mod batch;
pub(crate) mod copy;
pub(crate) mod decision;
pub mod error;
pub(crate) mod isolate;
pub(crate) mod keeper;
pub(crate) mod lane;
pub(crate) mod ledger;
pub(crate) mod opening;
pub mod session;
pub(crate) mod status;
pub(crate) mod transaction;
