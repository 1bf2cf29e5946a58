//! Who is calling, and what they may do.

pub(crate) mod access;
