//! What is known about the stored rows: the lanes' status, the ledger, the counts of the tables,
//! the quarantine, and the findings of the checks; and a survey of all that for the live page.

pub(crate) mod changes;
pub mod erasure;
pub mod ledger;

pub mod board;
pub mod doctor;
pub(crate) mod quarantine;
pub(crate) mod removed;
pub mod retention;
pub(crate) mod status;
pub(crate) mod survey;
pub mod verify;
