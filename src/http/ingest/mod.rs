//! The endpoints that take events.

pub mod ack;

pub(crate) mod body;
pub(crate) mod content_type;
pub(crate) mod decode;
pub(crate) mod handler;
pub(crate) mod options;
pub(crate) mod refusal;
pub(crate) mod response;
pub(crate) mod row_index;
pub(crate) mod segment;
pub(crate) mod waiting;
pub(crate) mod warnings;
