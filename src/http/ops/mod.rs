//! What operators ask: health, readiness, metrics.

pub(crate) mod health;
