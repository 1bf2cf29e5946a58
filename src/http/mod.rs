//! The HTTP service: requests in, responses out. The only module that knows HTTP.

pub(crate) mod app;

pub(crate) mod auth;
pub(crate) mod connection;
pub(crate) mod headers;
pub(crate) mod hosts;
pub mod ingest;
pub(crate) mod listener;
pub(crate) mod openapi;
pub(crate) mod ops;
pub(crate) mod pipeline;
pub(crate) mod problem;
pub(crate) mod routes;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use app::App;

use problem::Problem;

/// All routes, and their OpenAPI description.
fn router(app: Arc<App>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(ingest::handler::exposures))
        .routes(routes!(ingest::handler::interactions))
        .routes(routes!(ops::health::healthz))
        .routes(routes!(ops::health::readyz))
        .routes(routes!(ops::metrics::metrics))
        .with_state(app)
        .split_for_parts();
    // Serialised once and shared: otherwise each unread response would hold a copy.
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
