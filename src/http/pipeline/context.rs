//! A request while it is being answered: its request id, its span, problems, metrics, and what
//! every answer says. A request that panics is answered with 500.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::header::{ALLOW, CONNECTION, HeaderName};
use axum::http::{HeaderValue, StatusCode, Uri, Version};
use axum::response::Response;
use futures_util::FutureExt as _;
use tracing::Span;
use uuid::Uuid;

use crate::clock;
use crate::event::table::Table;
use crate::http::app::App;
use crate::http::connection::activity::InProgress;
use crate::http::connection::outgoing::Outgoing;
use crate::http::cors::{self, Page};
use crate::http::headers::protect;
use crate::http::ingest::body::read as body;
use crate::http::problem::Problem;
use crate::http::routes::{Port, Posts, Route};
use crate::http::traceparent::TraceParent;
use crate::metrics::ByStatus;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is accepted from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request while it is being answered.
pub(super) struct RequestContext {
    pub(super) app: Arc<App>,
    port: Port,
    is_https: bool,
    started: Instant,
    uri: Uri,
    pub(super) route: Option<&'static Route>,
    request_id: HeaderValue,
    /// What the path takes.
    pub(super) posts: Option<Posts>,
    /// The web page that posts events, if one does.
    pub(super) page: Option<Page>,
    /// Whether the client speaks HTTP/1, where a response can end the connection.
    is_http1: bool,
    is_held_back: bool,
    /// Whether the connection ends with the response.
    pub(super) closes: bool,
}

impl RequestContext {
    pub(super) fn begin(app: &Arc<App>, port: Port, is_https: bool, request: &Request) -> Self {
        let headers = request.headers();
        let given = headers.get(&REQUEST_ID).filter(|id| is_request_id(id));
        let request_id = given.cloned().unwrap_or_else(|| {
            let mut text = Uuid::encode_buffer();
            let id = Uuid::now_v7().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(id).expect("a UUID is visible ASCII")
        });
        let route = Route::of(request.uri(), app.segment_prefix.as_deref());
        let posts = route.and_then(|route| route.posts);
        let page = posts.and_then(|_| Page::of(headers, app));
        Self {
            app: Arc::clone(app),
            port,
            is_https,
            started: Instant::now(),
            uri: request.uri().clone(),
            route,
            request_id,
            posts,
            page,
            is_http1: request.version() < Version::HTTP_2,
            is_held_back: body::is_held_back(headers),
            closes: false,
        }
    }

    /// The span of the request, in the caller's trace. Costs next to nothing while the level is off.
    pub(super) fn span(&self, request: &Request) -> Span {
        let span = tracing::debug_span!(
            "request",
            method = %request.method(),
            route = self.label(),
            request_id = self.request_id.to_str().unwrap_or_default(),
            trace_id = tracing::field::Empty,
            parent_id = tracing::field::Empty,
        );
        if !span.is_disabled()
            && let Some(parent) = TraceParent::of(request.headers())
        {
            span.record("trace_id", parent.trace_id);
            span.record("parent_id", parent.parent_id);
        }
        span
    }

    /// The label for the path. Unknown paths share one, so that they cannot fill memory.
    pub(super) fn label(&self) -> &'static str {
        self.route.map_or("other", |route| route.path)
    }

    /// Whether this listener serves the path. Paths that there are nowhere are the router's.
    pub(super) fn is_served(&self) -> bool {
        match self.route {
            Some(route) => route.is_on(self.port),
            None => self.port != Port::Public,
        }
    }

    /// Awaits the response; 500 if it panics.
    pub(super) async fn answer(
        self,
        response: impl Future<Output = Response>,
        in_progress: InProgress,
    ) -> Result<Response<Outgoing>, Infallible> {
        self.answer_or_problem(response.map(Ok), in_progress).await
    }

    /// As [`answer`](Self::answer), for a response that may be a problem.
    pub(super) async fn answer_or_problem(
        mut self,
        response: impl Future<Output = Result<Response, Problem>>,
        in_progress: InProgress,
    ) -> Result<Response<Outgoing>, Infallible> {
        let mut response = match caught(response).await {
            Ok(response) => response,
            Err(problem) => {
                self.note(&problem);
                self.render(&problem)
            }
        };
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let allow = response.headers_mut().remove(ALLOW);
            response = self.render(&problem);
            if let Some(allow) = allow {
                // The router knows nothing of the methods that are answered before it.
                let allow = if self.posts.is_some() {
                    cors::METHODS
                } else {
                    allow
                };
                response.headers_mut().insert(ALLOW, allow);
            }
        }
        let response = self.end(response);
        Ok(response.map(|body| Outgoing::new(body, in_progress)))
    }

    /// Keeps the verdict on a body that is refused, if verdicts are asked for.
    fn note(&self, problem: &Problem) {
        let table = match self.posts {
            Some(Posts::Events(table)) => table,
            // No message of theirs is rejected with a problem.
            Some(Posts::Messages(_)) => Table::Interactions,
            None => return,
        };
        let (tap, now) = (&self.app.live.tap, clock::now());
        if tap.is_watched(now) {
            tap.note_problem(self.label(), table, now, problem);
        }
    }

    pub(super) fn render(&mut self, problem: &Problem) -> Response {
        if let Some(page) = &mut self.page
            && cors::is_refusal(problem)
        {
            page.refuse();
        }
        if let Some(code) = problem.refusal() {
            self.app.metrics.refuse(code);
        }
        let request_id = self.request_id.to_str().unwrap_or_default();
        // The public listener does not serve the page of codes.
        let has_page = self.port != Port::Public;
        problem.render(self.uri.path(), request_id, has_page)
    }

    fn end(self, mut response: Response) -> Response {
        let status = response.status();
        let route = self.label();
        let metrics = &self.app.metrics;
        let label = ByStatus {
            route,
            status: status.as_u16(),
        };
        metrics.requests.get_or_create(&label).inc();
        let elapsed = self.started.elapsed();
        metrics.request_seconds.observe(elapsed.as_secs_f64());
        tracing::debug!(status = label.status, ?elapsed, "answered");
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, self.request_id);
        if let Some(page) = &self.page {
            page.let_read(headers);
        }
        protect(headers, self.route, self.is_https);
        // After a refusal, a body that was held back may come all the same, or not.
        let is_refusal = status.is_client_error() || status.is_server_error();
        if self.is_http1 && (self.closes || (self.is_held_back && is_refusal)) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Awaits the response; a panic becomes a problem.
async fn caught(
    response: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let response = AssertUnwindSafe(response).catch_unwind().await;
    response.unwrap_or_else(|_| {
        // The panic's message may hold client data, so it is left to the panic hook. Unwinding has
        // released what the request held.
        tracing::error!("a request panicked, which is an error of this program; it is answered with 500");
        Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the service made a mistake with this request, and its events may be stored or not: send them again, each with its event_id and occurred_at",
        ))
    })
}

/// Whether a caller's request id may be repeated in headers and logs.
fn is_request_id(value: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::response::IntoResponse as _;

    use super::*;

    /// Counts while it lives, as reservations and gauges do.
    struct Held<'a>(&'a AtomicUsize);

    impl Drop for Held<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_request_that_panics_is_answered_with_500_and_holds_nothing() {
        let held = AtomicUsize::new(1);
        let guard = Held(&held);
        let problem = caught(async move {
            let _guard = guard;
            tokio::task::yield_now().await;
            panic!("on purpose");
        })
        .await
        .unwrap_err();
        assert_eq!(held.load(Ordering::Relaxed), 0);
        let response = problem.render("/v1/interactions", "r", true);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let fine = caught(async { Ok("fine".into_response()) }).await;
        assert_eq!(fine.unwrap().status(), StatusCode::OK);
    }
}
