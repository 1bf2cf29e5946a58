//! The service's wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::time::Micros;

pub fn now() -> Micros {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge at which time is read"
    )]
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
