//! Appending: records are staged for the active segment, written and synced group by group.

pub(crate) mod appender;
mod fair_queue;
pub(crate) mod group_committer;
pub(crate) mod recycled;
pub(crate) mod segment;
