//! Work on what is stored, done by commands and not by the service: it reads the event tables, and
//! writes only what is derived from them.

pub(crate) mod day;
pub mod join_quality;
pub(crate) mod played;
pub mod signals;
