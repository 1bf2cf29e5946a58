//! Endpoints for operators: health, readiness, metrics.

pub(crate) mod health;
