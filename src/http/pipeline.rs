//! The steps that every request passes: checks of the message, a request id, CORS, problem
//! responses, metrics. A request that panics is answered with 500.
//!
//! Requests to the event endpoints, which are nearly all, bypass the router: finding a route
//! among fifteen and boxing a future for each layer costs as much as decoding an event.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONNECTION, HeaderName};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::service::Service;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::clock;
use crate::event::formats::segment::rules::Call;
use crate::event::table::Table;
use crate::metrics::ByStatus;

use super::app::App;
use super::connection::activity::{Activity, InProgress};
use super::connection::outgoing::Outgoing;
use super::cors::{self, Page};
use super::headers::protect;
use super::hosts::Hosts;
use super::ingest::body::read as body;
use super::ingest::handler;
use super::ingest::segment;
use super::message;
use super::problem::Problem;
use super::routes::{Port, Route};
use super::traceparent::TraceParent;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is accepted from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Retry-After for a connection beyond the cap.
const EXTRA_RETRY_AFTER: Duration = Duration::from_secs(2);

/// All routes, and the steps around them.
#[derive(Clone, Debug)]
pub struct HttpService {
    app: Arc<App>,
    router: Router,
    port: Port,
    /// The hosts that requests may name; `None`: any.
    hosts: Option<Arc<Hosts>>,
}

impl HttpService {
    /// Serves the routes of a listener.
    pub(crate) fn new(app: Arc<App>, port: Port, hosts: Option<Hosts>) -> Self {
        let router = super::router(Arc::clone(&app));
        let hosts = hosts.map(Arc::new);
        Self {
            app,
            router,
            port,
            hosts,
        }
    }

    /// The same routes, on another listener.
    pub(crate) fn at(&self, port: Port) -> Self {
        Self {
            port,
            ..self.clone()
        }
    }

    /// The service of one connection. If it `is_extra`, it serves only health and metrics, and 503.
    pub(crate) fn on(
        &self,
        activity: Arc<Activity>,
        (peer, scheme): (IpAddr, Scheme),
        is_extra: bool,
    ) -> Connected {
        Connected {
            front: self.clone(),
            activity,
            peer,
            scheme,
            is_extra,
        }
    }

    /// Why a request is refused before its route is looked up.
    fn refusal(&self, request: &Request, scheme: Scheme) -> Option<Problem> {
        if scheme == Scheme::HttpForHttps {
            return Some(Problem::bad_request(
                "https_required",
                "this port speaks HTTPS, and the request came without TLS: use https:// in its URL",
            ));
        }
        let hosts = self.hosts.as_deref()?;
        (!hosts.allow(request)).then(|| {
            Problem::new(
                StatusCode::FORBIDDEN,
                "host_not_allowed",
                "the request names another host than localhost, 127.0.0.1 or the address that dev listens on, as \
                 a website does that has its name resolve to this machine (DNS rebinding); if the name is \
                 meant, start dev with --allow-host NAME",
            )
        })
    }
}

/// How the client speaks HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    /// Without TLS, on a port for HTTPS.
    HttpForHttps,
}

/// The service on one connection.
#[derive(Debug)]
pub(crate) struct Connected {
    front: HttpService,
    activity: Arc<Activity>,
    peer: IpAddr,
    scheme: Scheme,
    is_extra: bool,
}

impl Service<hyper::Request<Incoming>> for Connected {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let in_progress = self.activity.begin();
        let request = request.map(Body::new);
        let mut context = RequestContext::begin(&self.front, self.scheme, &request);
        let span = context.span(&request);
        let refused =
            message::malformed(&request).or_else(|| self.front.refusal(&request, self.scheme));
        if let Some(problem) = refused {
            // Where the next request begins is not certain: this one's length may be ambiguous.
            context.closes = true;
            let response = span.in_scope(|| context.render(&problem));
            let answer = context.answer(async { response }, in_progress);
            return Box::pin(answer.instrument(span));
        }
        context.closes = self.is_extra;
        // Also beyond the cap of connections: a page learns of the 503 only if it may post.
        if context.takes_events && request.method() == Method::OPTIONS {
            let entered = span.enter();
            let page = context.page.as_ref();
            let response = match cors::options(request.headers(), page, &context.app) {
                Ok(response) => response,
                Err(problem) => context.render(&problem),
            };
            drop(entered);
            let answer = context.answer(async { response }, in_progress);
            return Box::pin(answer.instrument(span));
        }
        if self.is_extra && !context.route.is_some_and(Route::is_always_served) {
            let problem = match context.segment {
                Some(_) => too_many_connections().into_too_many(),
                None => too_many_connections(),
            };
            let response = span.in_scope(|| context.render(&problem));
            let answer = context.answer(async { response }, in_progress);
            return Box::pin(answer.instrument(span));
        }
        let table = context.table.filter(|_| request.method() == Method::POST);
        match table {
            Some(table) => {
                let app = Arc::clone(&context.app);
                let peer = Some(self.peer);
                // Boxed first: it is large, and each future around it would move it.
                let collected =
                    Box::pin(async move { handler::collect(&app, table, peer, request).await });
                let answer = context.answer_or_problem(collected, in_progress);
                Box::pin(answer.instrument(span))
            }
            None if context.segment.is_some() => {
                let (app, call) = (Arc::clone(&context.app), context.segment);
                let call = call.filter(|_| request.method() == Method::POST);
                let peer = Some(self.peer);
                let collected = Box::pin(async move {
                    match call {
                        Some(call) => segment::collect(&app, call, peer, request).await,
                        None => Ok(other_method()),
                    }
                });
                let answer = context.answer_or_problem(collected, in_progress);
                Box::pin(answer.instrument(span))
            }
            None if !context.is_served() => {
                let response = span.in_scope(|| context.render(&not_here()));
                let answer = context.answer(async { response }, in_progress);
                Box::pin(answer.instrument(span))
            }
            None => {
                let router = self.front.router.clone();
                let request = respelt(request);
                let routed = async move {
                    let Ok(response) = router.oneshot(request).await;
                    response
                };
                Box::pin(context.answer(routed, in_progress).instrument(span))
            }
        }
    }
}

fn too_many_connections() -> Problem {
    Problem::unavailable(
        "too_many_connections",
        "no further connection can be served now; connect again later",
        EXTRA_RETRY_AFTER,
    )
}

/// The request with its path as the router knows it.
fn respelt(mut request: Request) -> Request {
    let uri = request.uri();
    let Some(route) = Route::of(uri, None)
        .and_then(Route::spelling)
        .filter(|route| *route != uri.path())
    else {
        return request;
    };
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{route}?{query}")),
        None => Ok(PathAndQuery::from_static(route)),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path_and_query.ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The answer to a method that the routes of Segment's shape do not take: the router does not know
/// them.
fn other_method() -> Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "messages are posted here; see /docs",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(ALLOW, cors::METHODS);
    response
}

/// The answer to what another listener serves.
fn not_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here; events are posted to /v1/exposures, /v1/interactions and /v1/assignments",
    )
}

/// A request while it is being answered.
struct RequestContext {
    app: Arc<App>,
    port: Port,
    scheme: Scheme,
    started: Instant,
    uri: Uri,
    route: Option<&'static Route>,
    request_id: HeaderValue,
    /// The table of the events that the path takes.
    table: Option<Table>,
    /// What of Segment's shape the path takes.
    segment: Option<Call>,
    /// Whether it takes either.
    takes_events: bool,
    /// The web page that posts events, if one does.
    page: Option<Page>,
    /// Whether the client speaks HTTP/1, where a response can end the connection.
    is_http1: bool,
    is_held_back: bool,
    /// Whether the connection ends with the response.
    closes: bool,
}

impl RequestContext {
    fn begin(front: &HttpService, scheme: Scheme, request: &Request) -> Self {
        let headers = request.headers();
        let given = headers.get(&REQUEST_ID).filter(|id| is_request_id(id));
        let request_id = given.cloned().unwrap_or_else(|| {
            let mut text = Uuid::encode_buffer();
            let id = Uuid::now_v7().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(id).expect("a UUID is visible ASCII")
        });
        let route = Route::of(request.uri(), front.app.segment_prefix.as_deref());
        let table = route.and_then(|route| route.table);
        let segment = route.and_then(|route| route.segment);
        let takes_events = route.is_some_and(Route::takes_events);
        let page = match takes_events {
            true => Page::of(headers, &front.app),
            false => None,
        };
        Self {
            app: Arc::clone(&front.app),
            port: front.port,
            scheme,
            started: Instant::now(),
            uri: request.uri().clone(),
            route,
            request_id,
            table,
            segment,
            takes_events,
            page,
            is_http1: request.version() < Version::HTTP_2,
            is_held_back: body::is_held_back(headers),
            closes: false,
        }
    }

    /// The span of the request, in the caller's trace. Costs next to nothing while the level is off.
    fn span(&self, request: &Request) -> Span {
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
    fn label(&self) -> &'static str {
        self.route.map_or("other", |route| route.path)
    }

    /// Whether this listener serves the path. Paths that there are nowhere are the router's.
    fn is_served(&self) -> bool {
        match self.route {
            Some(route) => route.is_on(self.port),
            None => self.port != Port::Public,
        }
    }

    /// Awaits the response; 500 if it panics.
    async fn answer(
        self,
        response: impl Future<Output = Response>,
        in_progress: InProgress,
    ) -> Result<Response<Outgoing>, Infallible> {
        self.answer_or_problem(response.map(Ok), in_progress).await
    }

    /// As [`answer`](Self::answer), for a response that may be a problem.
    async fn answer_or_problem(
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
                let allow = if self.takes_events {
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
        let (tap, now) = (&self.app.live.tap, clock::now());
        if let Some(table) = self.table.filter(|_| tap.is_watched(now)) {
            tap.note_problem(table, now, problem);
        }
    }

    fn render(&mut self, problem: &Problem) -> Response {
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
        protect(headers, self.route, self.scheme == Scheme::Https);
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
