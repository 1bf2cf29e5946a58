//! What every request passes on its way in and out: a request id, problems put
//! into words, counts.
//!
//! Also the short way to the two endpoints that nearly all requests are for:
//! finding a route among seven and boxing a future for each layer costs as much
//! as decoding an event.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::Service;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::event::Table;
use crate::metrics::ByStatus;

use super::problem::Problem;
use super::{App, collect};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Everything that is served, behind the outermost layer.
#[derive(Clone, Debug)]
pub struct Front {
    app: Arc<App>,
    router: Router,
}

impl Front {
    /// Serves all routes.
    pub fn new(app: Arc<App>) -> Self {
        let router = super::router(Arc::clone(&app));
        Self { app, router }
    }
}

impl Service<hyper::Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let request = request.map(Body::new);
        let visit = Visit::begin(&self.app, request.uri(), request.headers());
        match endpoint(&request) {
            Some(table) => Box::pin(async move {
                let answer = collect::collect(&visit.app, table, request).await;
                Ok(visit.end(answer.unwrap_or_else(|problem| visit.render(&problem))))
            }),
            None => {
                let router = self.router.clone();
                Box::pin(async move {
                    let mut response = router.oneshot(request).await?;
                    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                        let allow = response.headers_mut().remove(ALLOW);
                        response = visit.render(&problem);
                        if let Some(allow) = allow {
                            response.headers_mut().insert(ALLOW, allow);
                        }
                    }
                    Ok(visit.end(response))
                })
            }
        }
    }
}

/// The table whose events a request brings; all else is the router's.
fn endpoint(request: &Request) -> Option<Table> {
    if request.method() != Method::POST {
        return None;
    }
    Table::ALL
        .into_iter()
        .find(|&table| request.uri().path() == path(table))
}

/// The path of the endpoint that takes a table's events.
const fn path(table: Table) -> &'static str {
    match table {
        Table::Exposures => "/v1/exposures",
        Table::Interactions => "/v1/interactions",
    }
}

/// A request while it is being answered.
struct Visit {
    app: Arc<App>,
    started: Instant,
    uri: Uri,
    request_id: HeaderValue,
}

impl Visit {
    fn begin(app: &Arc<App>, uri: &Uri, headers: &HeaderMap) -> Self {
        let given = headers.get(&REQUEST_ID).filter(|id| is_request_id(id));
        let request_id = given.cloned().unwrap_or_else(|| {
            HeaderValue::try_from(Uuid::now_v7().to_string()).expect("a UUID is visible ASCII")
        });
        Self {
            app: Arc::clone(app),
            started: Instant::now(),
            uri: uri.clone(),
            request_id,
        }
    }

    fn render(&self, problem: &Problem) -> Response {
        if let Some(code) = problem.refusal() {
            self.app.metrics.refuse(code);
        }
        let request_id = self.request_id.to_str().unwrap_or_default();
        problem.render(self.uri.path(), request_id)
    }

    fn end(&self, mut response: Response) -> Response {
        let status = response.status().as_u16();
        let route = route(&self.uri);
        let metrics = &self.app.metrics;
        metrics
            .requests
            .get_or_create(&ByStatus { route, status })
            .inc();
        let elapsed = self.started.elapsed();
        metrics.request_seconds.observe(elapsed.as_secs_f64());
        tracing::debug!(route, status, request_id = ?self.request_id, ?elapsed, "answered");
        response
            .headers_mut()
            .insert(REQUEST_ID, self.request_id.clone());
        response
    }
}

/// Whether a caller's request id may be repeated in headers and logs.
fn is_request_id(value: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// The label for a path; unknown ones share one, so that they cannot fill memory.
fn route(uri: &Uri) -> &'static str {
    const ROUTES: [&str; 6] = [
        path(Table::Interactions),
        path(Table::Exposures),
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ];
    ROUTES
        .into_iter()
        .find(|route| *route == uri.path())
        .unwrap_or("other")
}
