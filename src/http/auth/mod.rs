//! Authentication and authorisation of requests.

pub(crate) mod access;
pub(crate) mod presented;
