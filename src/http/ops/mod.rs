//! Endpoints for operators: health, readiness, metrics.

pub(crate) mod ages;
pub(crate) mod health;
pub(crate) mod metrics;
