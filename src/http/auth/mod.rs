//! Authentication and authorisation of requests.

pub(crate) mod access;
pub(crate) mod operator;
pub(crate) mod presented;
