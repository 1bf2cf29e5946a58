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

pub use body::{Bodies, Body};
pub use event::{Event, occurred_us};
pub use expect::{Salt, expected_row, request_uuid};
pub use names::{EVENT, REQUEST, slot_of};
pub use plan::{Kind, Plan, Role};

pub use settings::{Caller, Encoding, Framing, Scope, Settings, only, parse_positive};
#[cfg(test)]
pub use settings::{FORMATS, defaults};
#[cfg(test)]
pub use tests::settings as test_settings;
