//! Tests of the whole spool on a disk that can be made to fail.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

pub(crate) mod caps;
pub(crate) mod crash;
pub(crate) mod damage;
pub(crate) mod directory;
pub(crate) mod lanes;
pub(crate) mod model;
pub(crate) mod numbers;
pub(crate) mod recycled;
pub(crate) mod rig;
