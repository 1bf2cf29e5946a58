//! One connection: who gets one, what it is doing, and its deadlines.

pub(crate) mod activity;
pub(crate) mod heads;
pub(crate) mod lingering;
pub(crate) mod places;
pub(crate) mod proxies;
pub(crate) mod watched;
