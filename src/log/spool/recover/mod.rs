//! What a start finds on disk: it is read, told, repaired, and then gone on from.

pub mod open;
pub(crate) mod openings;
pub(crate) mod repair;
pub(crate) mod scan;
