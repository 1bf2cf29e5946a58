//! A client of the service: lines of files become posts, once each.
//!
//! A source (`import`: files that are there; `follow`: files that grow) reads whole lines into
//! batches. `pipeline` has a few of them delivered at a time, and applies what became of them in
//! the order of the file: rejected lines are written with their reasons, then the position moves.
//!
//! Invariant: a position never moves past a line that is neither taken by the service nor written
//! to the rejects. What is sent again after a crash has the same identity (`line`), so it is stored
//! once. Uses nothing of the service but its HTTP interface.

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod client;
pub(crate) mod deliver;
mod fields;
pub(crate) mod files;
pub(crate) mod follow;
mod followed;
pub(crate) mod import;
pub(crate) mod kept;
pub(crate) mod line;
pub(crate) mod ops;
pub(crate) mod pipeline;
pub(crate) mod positions;
pub(crate) mod reader;
pub(crate) mod rejects;
pub(crate) mod status;
pub(crate) mod tls;
