//! Connections: which are accepted, what each is doing, and its deadlines.

pub(crate) mod activity;
pub(crate) mod certificate;
pub(crate) mod heads;
pub(crate) mod lingering;
pub(crate) mod outgoing;
pub(crate) mod places;
pub(crate) mod proxies;
pub(crate) mod reload;
pub(crate) mod tls;
pub(crate) mod watched;
