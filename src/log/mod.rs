//! The log between intake and writers: records go in durably and come out in order.
//!
//! [`record`] is the seam; [`spool`] is the log on this machine's disk.

pub mod record;
pub mod spool;
