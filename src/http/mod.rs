//! Bytes in, status out: everything that knows HTTP.

pub(crate) mod auth;
pub(crate) mod connection;
pub(crate) mod ingest;
pub(crate) mod listener;
pub(crate) mod openapi;
pub(crate) mod ops;
pub(crate) mod pipeline;
pub(crate) mod problem;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::accounts::board::Board;
use crate::accounts::status::LaneStatus;
use crate::admission::admit::Intake;
use crate::admission::arrivals::Arrivals;
use crate::config::Ack;
use crate::event::body::Limits;
use crate::event::identity::Pseudonymizer;
use crate::metrics::Metrics;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::Directory;

use ingest::body::BodyLimits;
use problem::Problem;

/// Items in one exposure. The suite shows at most 200; its pipelines refuse
/// sessions of more distinct items than that.
const ITEMS_MAX: usize = 1000;

/// Everything that answering a request takes.
#[derive(Debug)]
pub struct App {
    /// Where frames go.
    pub intake: Intake,
    /// What bodies hold while they are coming.
    pub arrivals: Arrivals,
    /// Tenants and keys.
    pub directory: Directory,
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

/// All routes, and their description.
fn router(app: Arc<App>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(ingest::handler::exposures))
        .routes(routes!(ingest::handler::interactions))
        .routes(routes!(ops::health::healthz))
        .routes(routes!(ops::health::readyz))
        .routes(routes!(ops::health::metrics))
        .with_state(app)
        .split_for_parts();
    // Written once: answers that are not read would each hold a copy.
    let description = description
        .to_json()
        .expect("the description is made of strings and numbers");
    let description = Bytes::from(description);
    let describe = get(move || async move {
        let kind = [(CONTENT_TYPE, "application/json")];
        (kind, description.clone())
    });
    router
        .route("/openapi.json", describe)
        .merge(SwaggerUi::new("/docs").config(Config::new(["/openapi.json"])))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here; see /docs",
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the path takes another method; see /docs",
    )
}
