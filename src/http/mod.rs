//! The HTTP service: requests in, responses out. The only module that knows HTTP.

pub(crate) mod app;
pub(crate) mod codes;

pub(crate) mod auth;
pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod docs;
pub(crate) mod flag;
pub(crate) mod headers;
pub(crate) mod hosts;
pub mod ingest;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod live;
pub(crate) mod message;
pub(crate) mod openapi;
pub(crate) mod ops;
pub(crate) mod pipeline;
pub(crate) mod problem;
pub(crate) mod problems;
pub(crate) mod routes;
pub(crate) mod traceparent;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodRouter, get};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use app::App;

use problem::Problem;
use routes::PROBLEMS;

/// The description of all routes, as `/openapi.json` has it.
pub fn description() -> serde_json::Value {
    openapi::complete(&described().1)
}

/// The routes that are described, and what they say of themselves.
fn described() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(ingest::handler::exposures))
        .routes(routes!(ingest::handler::interactions))
        .routes(routes!(ingest::handler::assignments))
        .routes(routes!(ops::health::healthz))
        .routes(routes!(ops::health::readyz))
        .routes(routes!(ops::metrics::metrics))
        .routes(routes!(live::endpoint::live))
        .split_for_parts()
}

/// All routes.
fn router(app: Arc<App>) -> Router {
    let (router, description) = described();
    // Serialised once and shared: otherwise each unread response would hold a copy.
    let description = Bytes::from(openapi::complete(&description).to_string());
    router
        .merge(docs::routes())
        .merge(live::page::routes())
        .with_state(app)
        .route("/openapi.json", fixed("application/json", description))
        .route(
            PROBLEMS,
            fixed("text/html; charset=utf-8", problems::page()),
        )
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// A page that is always the same.
fn fixed(kind: &'static str, page: Bytes) -> MethodRouter {
    get(move || async move { ([(CONTENT_TYPE, kind)], page.clone()) })
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
