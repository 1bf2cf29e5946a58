//! What is known of the rows: how the lanes get on, what the ledger and the tables say, what
//! is in quarantine, and what the checks found.

pub(crate) mod ledger;

pub mod board;
pub(crate) mod quarantine;
pub(crate) mod status;
pub(crate) mod verify;
