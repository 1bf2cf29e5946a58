//! The way in: records are staged into the open segment, written and synced group by group.

pub(crate) mod appender;
pub(crate) mod group_committer;
pub(crate) mod recycled;
pub(crate) mod segment;
