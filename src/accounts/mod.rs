//! What is known about the stored rows: the lanes' status, the ledger, the counts of the tables,
//! the quarantine, and the findings of the checks.

pub(crate) mod changes;
pub mod erasure;
pub(crate) mod ledger;

pub mod board;
pub(crate) mod quarantine;
pub(crate) mod removed;
pub mod retention;
pub(crate) mod status;
pub mod verify;
