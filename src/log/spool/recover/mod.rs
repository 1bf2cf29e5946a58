//! What happens at start: the disk is scanned, the findings are logged and repaired, and the
//! log continues after them.

pub mod glance;
pub mod open;
pub(crate) mod openings;
pub(crate) mod repair;
pub(crate) mod scan;
