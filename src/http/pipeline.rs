//! The steps that every request passes: checks of the message, CORS, and then its route. What they
//! need to know of the request, and its answer, are in `context`.
//!
//! Requests to the event endpoints, which are nearly all, bypass the router: finding a route
//! among fifteen and boxing a future for each layer costs as much as decoding an event.

mod context;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::ALLOW;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::app::App;
use super::connection::activity::Activity;
use super::connection::outgoing::Outgoing;
use super::cors;
use super::hosts::Hosts;
use super::ingest::{handler, segment};
use super::message;
use super::problem::Problem;
use super::routes::{Port, Posts, Route};
use context::RequestContext;

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
        let front = &self.front;
        let is_https = self.scheme == Scheme::Https;
        let mut context = RequestContext::begin(&front.app, front.port, is_https, &request);
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
        if context.posts.is_some() && request.method() == Method::OPTIONS {
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
            let problem = match context.posts {
                Some(Posts::Messages(_)) => too_many_connections().into_too_many(),
                _ => too_many_connections(),
            };
            let response = span.in_scope(|| context.render(&problem));
            let answer = context.answer(async { response }, in_progress);
            return Box::pin(answer.instrument(span));
        }
        let is_post = request.method() == Method::POST;
        match context.posts {
            Some(Posts::Events(table)) if is_post => {
                let (app, peer) = (Arc::clone(&context.app), Some(self.peer));
                // Boxed first: it is large, and each future around it would move it.
                let collected =
                    Box::pin(async move { handler::collect(&app, table, peer, request).await });
                let answer = context.answer_or_problem(collected, in_progress);
                Box::pin(answer.instrument(span))
            }
            Some(Posts::Messages(call)) if is_post => {
                let (app, peer) = (Arc::clone(&context.app), Some(self.peer));
                let at = (context.label(), call);
                let collected =
                    Box::pin(async move { segment::collect(&app, at, peer, request).await });
                let answer = context.answer_or_problem(collected, in_progress);
                Box::pin(answer.instrument(span))
            }
            Some(Posts::Messages(_)) => {
                let answer = context.answer(async { other_method() }, in_progress);
                Box::pin(answer.instrument(span))
            }
            _ if !context.is_served() => {
                let response = span.in_scope(|| context.render(&not_here()));
                let answer = context.answer(async { response }, in_progress);
                Box::pin(answer.instrument(span))
            }
            _ => {
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
