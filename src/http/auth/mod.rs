//! Authentication and authorisation of requests.

pub(crate) mod access;
mod presented;
