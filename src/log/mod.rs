//! The log between admission and the writers: records go in durably and come out in order.
//!
//! [`record`] defines what goes in and what comes out, [`mod@append`] and [`read`] how. [`spool`] is
//! the log on the local disk.

pub mod append;
pub mod read;
pub mod record;
pub mod spool;
