//! Removes what is older than it is kept: partitions, rows in DEFAULT partitions, and old rows of
//! the service's own tables.
//!
//! Invariant: what is removed is booked by the transaction that removes it, and no partition of its
//! time is made again; see docs/decisions/0025. Off unless a length of time is set. Any number of
//! processes may try: one does it at a time.

pub(crate) mod defaults;
pub(crate) mod detach;
pub(crate) mod own;
pub mod policy;
pub mod preview;
pub mod run;
pub(crate) mod task;
