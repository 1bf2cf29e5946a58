//! Bytes in, status out: everything that knows HTTP.

mod answer;
mod auth;
mod body;
pub mod clock;
mod collect;
mod health;
mod linger;
mod listener;
mod openapi;
mod problem;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::HeaderName;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;
use uuid::Uuid;

use crate::config::Ack;
use crate::event::{Limits, Pseudonymizer};
use crate::metrics::{ByStatus, Metrics};
use crate::queue::Intake;
use crate::store::LaneStatus;
use crate::store::directory::{ApiKeyHasher, Directory};

pub use body::BodyLimits;
pub use listener::{Connections, serve};
use problem::Problem;

/// Items in one exposure. The suite shows at most 200; its pipelines refuse
/// sessions of more distinct items than that.
const ITEMS_MAX: usize = 1000;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Everything that answering a request takes.
#[derive(Debug)]
pub struct App {
    /// Where frames go.
    pub intake: Intake,
    /// Tenants and keys.
    pub directory: Directory,
    /// Hashes keys as they are stored.
    pub key_hasher: ApiKeyHasher,
    /// Hashes raw ids.
    pub pseudonymizer: Pseudonymizer,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// How the writers get on.
    pub lanes: Vec<Arc<LaneStatus>>,
    /// Caps on bodies.
    pub body_limits: BodyLimits,
    /// Caps on events.
    pub event_limits: Limits,
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

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(collect::exposures))
        .routes(routes!(collect::interactions))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .with_state(Arc::clone(&app))
        .split_for_parts();
    router
        .merge(SwaggerUi::new("/docs").url("/openapi.json", description))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app, around))
}

/// The outermost layer: request ids, problems, counts.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| is_request_id(id))
        .cloned();
    let request_id = request_id.unwrap_or_else(|| {
        HeaderValue::try_from(Uuid::now_v7().to_string()).expect("a UUID is visible ASCII")
    });
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.render(uri.path(), request_id.to_str().unwrap_or_default());
    }
    let status = response.status().as_u16();
    let route = route(&uri);
    app.metrics
        .requests
        .get_or_create(&ByStatus { route, status })
        .inc();
    app.metrics
        .request_seconds
        .observe(started.elapsed().as_secs_f64());
    tracing::debug!(route, status, request_id = ?request_id, elapsed = ?started.elapsed(), "answered");
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

/// Whether a caller's request id may be repeated in headers and logs.
fn is_request_id(value: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// The label for a path; unknown ones share one, so that they cannot fill memory.
fn route(uri: &Uri) -> &'static str {
    const ROUTES: [&str; 6] = [
        "/v1/exposures", "/v1/interactions", "/healthz", "/readyz", "/metrics", "/openapi.json",
    ];
    ROUTES
        .into_iter()
        .find(|route| *route == uri.path())
        .unwrap_or("other")
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
