//! Erasure and export of a user.
//!
//! Invariant: once an erasure has begun, no batch commits a row of its user from before its time; see
//! docs/decisions/0026. Raw ids are not known here, only their hashes.

pub mod begin;
pub mod export;
pub(crate) mod leaf;
mod pace;
pub mod quarantined;
pub mod rows;
pub(crate) mod subjects;
