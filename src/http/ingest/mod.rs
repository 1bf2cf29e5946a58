//! The two endpoints that take events.

pub mod ack;

pub(crate) mod body;
pub(crate) mod handler;
pub(crate) mod response;
