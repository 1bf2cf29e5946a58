//! Everything that answering a request takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::ingest::ack::Ack;
use super::ingest::body::BodyLimits;
use crate::accounts::board::Board;
use crate::accounts::status::LaneStatus;
use crate::admission::admit::Admission;
use crate::admission::arrivals::Arrivals;
use crate::event::body::Limits;
use crate::event::identity::Pseudonymizer;
use crate::metrics::Metrics;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::TenantCache;

/// Items in one exposure. The suite shows at most 200; its pipelines refuse
/// sessions of more distinct items than that.
pub(crate) const ITEMS_MAX: usize = 1000;

/// Everything that answering a request takes.
#[derive(Debug)]
pub struct App {
    /// Where frames go.
    pub intake: Admission,
    /// What bodies hold while they are coming.
    pub arrivals: Arrivals,
    /// Tenants and keys.
    pub directory: TenantCache,
    /// Hashes keys as they are stored.
    pub key_hasher: ApiKeyHasher,
    /// Hashes raw ids.
    pub pseudonymizer: Pseudonymizer,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What the checks found.
    pub checks: Arc<Board>,
    /// How the writers get on.
    pub lanes: Vec<Arc<LaneStatus>>,
    /// Caps on bodies.
    pub body_limits: BodyLimits,
    /// Caps on events.
    pub event_limits: Limits,
    /// Turns of large bodies to be decoded.
    pub decoding: Arc<Semaphore>,
    /// What an answer waits for where the request does not say.
    pub default_ack: Ack,
    /// Longest wait for a COMMIT.
    pub commit_timeout: Duration,
    /// Oldest event, in µs before now.
    pub horizon_past_us: i64,
    /// Furthest event in the future, in µs from now.
    pub horizon_future_us: i64,
    /// Cancelled once the service stops.
    pub stopping: CancellationToken,
}
