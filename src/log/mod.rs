//! The log between admission and the writers: records go in durably and come out in order.
//!
//! [`record`] defines what goes in and what comes out; [`spool`] is the log on the local disk.

pub mod record;
pub mod spool;
