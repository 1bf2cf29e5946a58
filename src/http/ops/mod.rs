//! Endpoints for operators: health, readiness, metrics.

pub(crate) mod health;
pub(crate) mod metrics;
