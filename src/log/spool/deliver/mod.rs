//! Delivery: each stream's records reach their writer, from memory or from disk.

pub(crate) mod lag;
pub(crate) mod lane;
pub mod reader;
