//! The spool as a whole, on a disk that can be made to fail.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod caps;
mod crash;
mod damage;
mod directory;
mod lanes;
mod model;
mod numbers;
mod rig;
mod spares;
