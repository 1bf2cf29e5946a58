//! Events of every format, made up.
//!
//! Keeps one invariant: the bytes of a run follow from its [`settings`] alone,
//! so that the same seed posts the same bytes again, and the check can make any
//! event a second time instead of remembering it. Has no clock and no IO, and
//! knows nothing of the service but its formats.

pub(crate) mod settings;

pub(crate) mod plan;

pub(crate) mod event;
pub(crate) mod identity;
pub(crate) mod names;
pub(crate) mod random;

mod text;
mod time;
mod write;

pub(crate) mod body;
pub(crate) mod expect;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod tests;
