//! What the request handlers share: settings, limits and handles of other stages.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ingest::ack::Ack;
use super::ingest::body::read::BodyLimits;
use super::limits::RateLimits;
use super::live::view::LiveView;
use super::traceparent::TraceParent;
use crate::accounts::board::Board;
use crate::accounts::status::LaneStatus;
use crate::admission::admit::Admission;
use crate::admission::arrivals::Arrivals;
use crate::event::body::Limits;
use crate::event::identity::Pseudonymizer;
use crate::metrics::Metrics;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::TenantCache;
use crate::tenants::settings::Origins;

/// Most items in one exposure. The suite shows at most 200, and its pipelines refuse sessions of
/// more than 200 distinct items.
pub(crate) const ITEMS_MAX: usize = 1000;

/// What the request handlers share.
#[derive(Debug)]
pub struct App {
    /// Takes records, or refuses them on overload.
    pub admission: Admission,
    /// The share of the memory limit that bodies may hold while they arrive.
    pub arrivals: Arrivals,
    /// Limits on events and bytes, of tenants, keys and client addresses.
    pub(crate) rate_limits: RateLimits,
    /// Tenants and API keys, in memory.
    pub tenants: TenantCache,
    /// The origins of pages for keys that have no list, and whose tenants have none.
    pub cors_origins: Origins,
    /// What may stand before the paths of Segment's shape.
    pub segment_prefix: Option<String>,
    /// Hashes API keys as they are stored.
    pub key_hasher: ApiKeyHasher,
    /// Hashes raw user, anonymous and session ids.
    pub pseudonymizer: Pseudonymizer,
    /// Counters, gauges and histograms.
    pub metrics: Arc<Metrics>,
    /// Findings of the database and machine checks.
    pub checks: Arc<Board>,
    /// Status of each lane's writer.
    pub lanes: Vec<Arc<LaneStatus>>,
    /// Limits on bodies.
    pub body_limits: BodyLimits,
    /// Limits on events.
    pub event_limits: Limits,
    /// Limits how many large bodies are decoded at once.
    pub decoding: Arc<Semaphore>,
    /// The level that a response waits for if the request names none.
    pub default_ack: Ack,
    /// Longest wait for a COMMIT.
    pub commit_timeout: Duration,
    /// Age of the oldest event that is accepted, in µs.
    pub horizon_past_us: i64,
    /// Furthest event in the future that is accepted, in µs from now.
    pub horizon_future_us: i64,
    /// What the live page needs in addition.
    pub(crate) live: LiveView,
    /// Cancelled when the service stops.
    pub stopping: CancellationToken,
}

impl App {
    /// Admission of a request with these headers, on the account of a tenant.
    pub(crate) fn admission_of(&self, tenant: Uuid, headers: &HeaderMap) -> Admission {
        let admission = self.admission.of(tenant);
        match admission.log().carries_traces() {
            true => admission.traced(TraceParent::passed_on(headers)),
            false => admission,
        }
    }
}
