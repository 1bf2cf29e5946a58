//! Made-up events of every format.
//!
//! Keeps one invariant: the bytes of a run follow from its [`Settings`] alone, so
//! that the same seed posts the same bytes again, and the check can make any event
//! a second time instead of keeping it. Has no clock and no IO.

mod body;
mod event;
mod expect;
mod names;
mod plan;
mod random;
mod settings;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use body::{Bodies, Body};
pub(crate) use event::{Event, occurred_us};
pub(crate) use expect::{Salt, expected_row, request_uuid};
pub(crate) use names::{Naming, item, slot_of};
pub(crate) use plan::{Kind, Owner, Plan, Role};

pub(crate) use settings::{Caller, Encoding, Framing, Scope, Settings, parse_positive};
#[cfg(test)]
pub(crate) use tests::settings as test_settings;
