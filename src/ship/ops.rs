//! Health and metrics of a shipper, for the machines that watch it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;

use super::status::{Status, Work, get as read};
use crate::exposition;

/// Serves `/healthz`, `/readyz` and `/metrics` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, status: Arc<Status>) -> Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status);
    axum::serve(listener, routes)
        .await
        .context("the listener of --ops-listen ended")
}

/// `ready`, or `degraded` with reasons: both go on by themselves. `unready` (503) if nothing can be
/// read, or nothing that is done can be noted.
async fn readyz(State(status): State<Arc<Status>>) -> Response {
    let troubles = status.troubles();
    let is_unready = troubles.iter().any(|(work, _)| *work != Work::Sending);
    let (name, code) = match (is_unready, troubles.is_empty()) {
        (true, _) => ("unready", StatusCode::SERVICE_UNAVAILABLE),
        (false, false) => ("degraded", StatusCode::OK),
        (false, true) => ("ready", StatusCode::OK),
    };
    let reasons: Vec<String> = troubles.into_iter().map(|(_, why)| why).collect();
    let (behind_bytes, stalled_for) = status.behind();
    let body = json!({
        "status": name,
        "reasons": reasons,
        "behind_bytes": behind_bytes,
        "stalled_seconds": stalled_for.as_secs(),
    });
    (code, Json(body)).into_response()
}

async fn metrics(State(status): State<Arc<Status>>, headers: HeaderMap) -> Response {
    let mut registry = Registry::with_prefix("recsys_ingest_ship");
    registry.register_collector(Box::new(Numbers(status)));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            let accepted = headers.get_all(ACCEPT).iter();
            let accepted = accepted.filter_map(|one| one.to_str().ok());
            let (content_type, text) = exposition::of(text, accepted);
            ([(CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Debug)]
struct Numbers(Arc<Status>);

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = &self.0;
        let counters: [(&str, &str, &AtomicU64); 9] = [
            ("lines", "Lines that are done", &status.lines),
            (
                "accepted_events",
                "Events that the service took",
                &status.accepted,
            ),
            (
                "rejected_lines",
                "Lines in the file of rejected lines",
                &status.rejected,
            ),
            ("posts", "Requests", &status.posts),
            ("retries", "Requests that were sent again", &status.retries),
            (
                "sent_bytes",
                "Bytes of bodies, after compression",
                &status.sent_bytes,
            ),
            (
                "duplicate_events",
                "Of the accepted: stored before (--ack committed)",
                &status.duplicates,
            ),
            (
                "quarantined_events",
                "Of the accepted: refused by Postgres (--ack committed)",
                &status.quarantined,
            ),
            (
                "truncated_files",
                "Files that became shorter or were written over",
                &status.truncated,
            ),
        ];
        for (name, help, number) in counters {
            let counter = ConstCounter::new(read(number));
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let (bytes, stalled) = status.behind();
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let gauges: [(&str, &str, i64); 4] = [
            (
                "files",
                "Files that are followed",
                whole(read(&status.files)),
            ),
            ("behind_bytes", "Bytes that are not delivered", whole(bytes)),
            (
                "stalled_seconds",
                "Seconds since the last delivery while there are some",
                whole(stalled.as_secs()),
            ),
            (
                "failing",
                "1 while something keeps lines from being delivered",
                i64::from(!status.troubles().is_empty()),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
