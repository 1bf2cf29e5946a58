//! Metrics, as Prometheus text or as OpenMetrics text.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::ages;
use super::health::accounts;
use crate::clock;
use crate::event::table::Table;
use crate::http::app::App;
use crate::logging;
use crate::metrics::{ByState, ByTable, RowState};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    match asks_for_openmetrics(&headers) {
        true => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        false => ([(CONTENT_TYPE, PROMETHEUS)], to_prometheus(&text)).into_response(),
    }
}

fn asks_for_openmetrics(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("application/openmetrics-text"))
    })
}

/// OpenMetrics text as Prometheus text: help and type of a counter name its `_total`, and there is
/// no end mark. Source: the Prometheus exposition formats, version 0.0.4.
fn to_prometheus(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len() + 16 * counters.len());
    for line in openmetrics.lines() {
        let meta = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|kind| Some((kind, line.strip_prefix(kind)?.split_once(' ')?)));
        match meta {
            Some((kind, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("{kind}{name}_total {rest}\n"));
            }
            _ if line == "# EOF" || line.starts_with("# UNIT ") => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_type_of_a_counter_stand_at_its_total() {
        let openmetrics = "# HELP events Events.\n# TYPE events counter\nevents_total{table=\"a\"} 3\n\
                           # HELP rows Rows.\n# TYPE rows gauge\nrows 2\n# EOF\n";
        let text = "# HELP events_total Events.\n# TYPE events_total counter\nevents_total{table=\"a\"} 3\n\
                    # HELP rows Rows.\n# TYPE rows gauge\nrows 2\n";
        assert_eq!(to_prometheus(openmetrics), text);
    }
}
