//! A request's body: read within limits of time and memory, and inflated.

pub(crate) mod inflate;
pub(crate) mod read;
pub(crate) mod received;
