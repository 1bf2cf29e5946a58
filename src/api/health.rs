//! Whether the service lives, whether it can take events, and what it counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::Health;

use super::App;

/// Whether events can be taken.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`; `degraded` (Postgres is away, events are still taken); `unready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why it is not `ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "Alive", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Whether the service can take events.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "Events are taken", body = Readiness),
        (status = 503, description = "Send events elsewhere", body = Readiness),
    ))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let mut reasons = Vec::new();
    let mut unready = false;
    if app.stopping.is_cancelled() {
        unready = true;
        reasons.push("the service is stopping");
    }
    if app.directory.age().is_none() {
        unready = true;
        reasons.push("tenants and API keys were never read from the database");
    }
    match app.lanes.iter().map(|lane| lane.get()).max() {
        Some(Health::Fault) => {
            reasons
                .push("events cannot be stored until an operator mends the database; see the log");
        }
        Some(Health::Away) => reasons.push("Postgres is away or busy"),
        Some(Health::Good) | None => {}
    }
    let status = match (unready, reasons.is_empty()) {
        (true, _) => "unready",
        (false, false) => "degraded",
        (false, true) => "ready",
    };
    let code = if unready {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (code, Json(Readiness { status, reasons })).into_response()
}

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "OpenMetrics text", body = String)))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (bytes, _) = app.intake.bytes();
    app.metrics
        .queue_bytes
        .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    match app.metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
