//! What is known about the stored rows: the lanes' status, the ledger, the counts of the tables,
//! the quarantine, and the findings of the checks.

pub(crate) mod changes;
pub(crate) mod ledger;

pub mod board;
pub mod doctor;
pub(crate) mod quarantine;
pub(crate) mod status;
pub(crate) mod verify;
