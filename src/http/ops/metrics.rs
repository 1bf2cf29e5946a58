//! Metrics, as Prometheus text or as OpenMetrics text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::ages;
use super::health::accounts;
use crate::clock;
use crate::event::table::Table;
use crate::exposition;
use crate::http::app::App;
use crate::logging;
use crate::metrics::{ByState, ByTable, RowState};

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text, version 0.0.4; OpenMetrics text if Accept asks for it", body = String)))]
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let metrics = &app.metrics;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    metrics
        .queue_bytes
        .set(whole(app.admission.bytes().0 as u64));
    let fill = app.admission.log().usage();
    metrics.spool_bytes.set(whole(fill.bytes));
    metrics.spool_bytes_max.set(whole(fill.bytes_max));
    metrics.spool_lost_rows.set(whole(fill.lost));
    let refused = metrics.refused_for_room() + fill.refused;
    metrics.spool_refused_frames.set(whole(refused));
    metrics.caller_lookups.set(whole(app.tenants.lookups()));
    metrics.log_lost_lines.set(whole(logging::lost_lines()));
    let now = clock::now();
    for table in Table::ALL {
        let age = ages::oldest_unstored(&app, table, now).unwrap_or_default();
        metrics
            .oldest_unstored_seconds
            .get_or_create(&ByTable { table })
            .set(age.as_secs_f64());
        metrics
            .unstored_records
            .get_or_create(&ByTable { table })
            .set(whole(ages::unstored_records(&app, table)));
    }
    for account in accounts(&app) {
        for (state, rows) in [
            (RowState::Accepted, account.accepted),
            (RowState::Stored, account.stored),
            (RowState::Duplicate, account.duplicates),
            (RowState::Quarantined, account.quarantined),
            (RowState::Spooled, account.spooled),
            (RowState::Lost, account.lost),
        ] {
            let label = ByState {
                table: account.table,
                state,
            };
            metrics.rows.get_or_create(&label).set(whole(rows));
        }
    }
    let Ok(text) = metrics.encode() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let accepted = headers.get_all(ACCEPT).iter();
    let (content_type, text) = exposition::of(text, accepted.filter_map(|one| one.to_str().ok()));
    ([(CONTENT_TYPE, content_type)], text).into_response()
}
