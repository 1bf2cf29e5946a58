//! Which web pages may post events and read the answers (CORS).
//!
//! A preflight carries no key, so it is answered for every origin that some key, some tenant or the
//! service lists. A post is checked against the list of its key. The origin is echoed, also
//! where a list says `*`, and credentials are allowed: beacons are always sent with credentials, and
//! for `*` browsers make the preflight and then do not post. The service uses no cookies.
//!
//! This protects from other websites' pages. Programs send any origin that they like, or none.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HOST, HeaderName, ORIGIN,
    VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::auth::access::STALE_AFTER;
use super::problem::Problem;
use crate::clock;
use crate::tenants::settings::Origins;

/// Whether a page is refused because of its origin: then it cannot read the answer.
pub(crate) fn is_refusal(problem: &Problem) -> bool {
    problem.code() == "origin_not_allowed"
}

/// The methods of the event endpoints.
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// Longest origin that is looked up: a host has at most 253 characters.
const ORIGIN_BYTES_MAX: usize = 300;

/// How long a browser may keep the answer to a preflight: two hours, the most that Chromium keeps one.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What pages may read of an answer, in addition to what they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Ingest-Ack, Retry-After, RateLimit, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, \
     RateLimit-Reset, X-Request-Id",
);

/// What pages may send: what the service reads, and what tracing adds.
const HEADERS: &str = "content-type, content-encoding, x-api-key, authorization, x-org-id, \
                       x-request-id, traceparent, tracestate, baggage";

/// Longest list of further headers that is allowed as it was asked for.
const HEADERS_BYTES_MAX: usize = 1024;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const YES: HeaderValue = HeaderValue::from_static("true");

/// What the answer to a preflight depends on.
const VARIES_BY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, \
     Access-Control-Request-Private-Network",
);

/// The web page that a request comes from.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its origin, if the page may read the answer.
    origin: Option<HeaderValue>,
}

impl Page {
    /// The page behind a request to an event endpoint; `None` for a request without `Origin`.
    pub(crate) fn of(headers: &HeaderMap, app: &App) -> Option<Self> {
        let origin = headers.get(ORIGIN)?;
        let may_read = is_same_origin(headers)
            || origin_of(headers).is_some_and(|origin| is_listed(origin, app));
        Some(Self {
            origin: may_read.then(|| origin.clone()),
        })
    }

    /// Keeps the answer from the page: its key does not list the origin.
    pub(crate) fn refuse(&mut self) {
        self.origin = None;
    }

    /// Adds to an answer, also to an error, what lets the page read it.
    pub(crate) fn let_read(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(VARY) {
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = &self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// The answer to `OPTIONS` at an event endpoint, with `page` as [`Page::of`] finds it. What the
/// page needs to read it is added as to every answer.
pub(crate) fn options(
    headers: &HeaderMap,
    page: Option<&Page>,
    app: &App,
) -> Result<Response, Problem> {
    let mut response = (StatusCode::NO_CONTENT, Body::empty()).into_response();
    let answer = response.headers_mut();
    answer.insert(ALLOW, METHODS);
    answer.insert(VARY, VARIES_BY);
    let (Some(page), true) = (page, headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)) else {
        return Ok(response);
    };
    if page.origin.is_none() {
        // Whether a key lists the origin is not known without a recent reading of the keys.
        let is_well_formed = origin_of(headers).is_some();
        if is_well_formed && app.tenants.age().is_none_or(|age| age > STALE_AFTER) {
            return Err(Problem::unavailable(
                "keys_unavailable",
                "the API keys and their origins cannot be read from the database at the moment, so one may list this origin; try again later",
                Duration::from_secs(2),
            ));
        }
        return Err(not_allowed(
            headers,
            "no list of an API key, of a tenant or of the service (--cors-origins) has it",
        ));
    }
    answer.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(headers));
    answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if headers.get(REQUEST_PRIVATE_NETWORK) == Some(&YES) {
        answer.insert(ALLOW_PRIVATE_NETWORK, YES);
    }
    Ok(response)
}

/// Checks the page that posts against its key's list, or else that of the key's tenant, or else the
/// service's.
///
/// # Errors
///
/// 403 `origin_not_allowed`. A request without `Origin` is not from a page of another origin.
pub(crate) fn check_post(
    headers: &HeaderMap,
    own: Option<&Origins>,
    app: &App,
) -> Result<(), Problem> {
    if !headers.contains_key(ORIGIN) || is_same_origin(headers) {
        return Ok(());
    }
    let list = own.unwrap_or(&app.cors_origins);
    match origin_of(headers) {
        Some(origin) if list.allow(origin) => Ok(()),
        _ => {
            let why = match own {
                Some(_) => "the list of this API key, or of its tenant, does not have it",
                None => {
                    "this API key and its tenant have no list, and --cors-origins does not have it"
                }
            };
            Err(not_allowed(headers, why))
        }
    }
}

fn not_allowed(headers: &HeaderMap, why: &str) -> Problem {
    let detail = match origin_of(headers) {
        Some(origin) => format!(
            "pages of the origin {origin} may not post here: {why}; where that is meant, an operator adds it"
        ),
        None => "the request has an Origin header that is not one origin".to_owned(),
    };
    Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail)
}

fn is_listed(origin: &str, app: &App) -> bool {
    app.cors_origins.allow(origin) || app.tenants.snapshot().lists_origin(origin, clock::now().0)
}

/// The request's origin; `None` if it is not one origin, as in no browser's request.
pub(crate) fn origin_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (values.next(), values.next()) else {
        return None;
    };
    let origin = origin.to_str().ok()?;
    let is_one = origin.eq_ignore_ascii_case("null")
        || (origin.contains("://") && !origin.contains([' ', ',', '\t']));
    (is_one && origin.len() <= ORIGIN_BYTES_MAX).then_some(origin)
}

/// Whether the page was loaded from this service's own address, as `/docs` is, or from a site that
/// passes the endpoint on.
///
/// Browsers say so in `Sec-Fetch-Site`, and only over HTTPS or to this machine. Without it, `Origin`
/// and `Host` are compared, where the host is an address or `localhost`: with another name, any
/// website could have its own name resolve to this service (DNS rebinding).
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site == "same-origin";
    }
    let (Some(origin), Some(host)) = (origin_of(headers), headers.get(HOST)) else {
        return false;
    };
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    matches!(scheme, "http" | "https")
        && authority.as_bytes().eq_ignore_ascii_case(host.as_bytes())
        && authority.parse::<Authority>().is_ok_and(|authority| {
            let host = authority.host();
            let address = host.trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<Ipv4Addr>().is_ok()
                || address.parse::<Ipv6Addr>().is_ok()
        })
}

/// The headers that a page may send: those that the service reads, and all that it asks for.
///
/// The service trusts no header but the one with the key, and what monitoring adds to a page's
/// requests must not keep its events out.
pub(crate) fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let base = HeaderValue::from_static(HEADERS);
    let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let mut all = String::from(HEADERS);
    for name in asked
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let name = name.trim();
        if HEADERS
            .split(", ")
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            continue;
        }
        // A name that is none is for the browser to refuse.
        if HeaderName::try_from(name).is_ok() {
            all.push_str(", ");
            all.push_str(name);
        }
        if all.len() > HEADERS.len() + HEADERS_BYTES_MAX {
            return base;
        }
    }
    HeaderValue::try_from(all).unwrap_or(base)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_the_services_own_address_is_the_same_origin() {
        for (list, same) in [
            (
                vec![
                    ("origin", "http://127.0.0.1:8080"),
                    ("host", "127.0.0.1:8080"),
                ],
                true,
            ),
            (
                vec![
                    ("origin", "https://127.0.0.1:8080"),
                    ("host", "127.0.0.1:8080"),
                ],
                true,
            ),
            (
                vec![
                    ("origin", "http://localhost:8080"),
                    ("host", "LOCALHOST:8080"),
                ],
                true,
            ),
            (
                vec![("origin", "http://[::1]:8080"), ("host", "[::1]:8080")],
                true,
            ),
            (
                vec![
                    ("origin", "http://127.0.0.1:8081"),
                    ("host", "127.0.0.1:8080"),
                ],
                false,
            ),
            // A name may be made to resolve to this service.
            (
                vec![("origin", "http://a.example"), ("host", "a.example")],
                false,
            ),
            (
                vec![
                    ("origin", "https://a.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (
                vec![("origin", "null"), ("sec-fetch-site", "same-origin")],
                true,
            ),
            (
                vec![
                    ("origin", "https://a.example"),
                    ("sec-fetch-site", "same-site"),
                ],
                false,
            ),
            (
                vec![
                    ("origin", "https://a.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (
                vec![
                    ("origin", "http://127.0.0.1"),
                    ("host", "127.0.0.1"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (vec![("origin", "null"), ("host", "null")], false),
            (
                vec![("origin", "ftp://127.0.0.1"), ("host", "127.0.0.1")],
                false,
            ),
            (vec![("origin", "http://127.0.0.1")], false),
        ] {
            assert_eq!(is_same_origin(&headers(&list)), same, "{list:?}");
        }
    }

    #[test]
    fn an_origin_is_one_and_short() {
        let long: &'static str = Box::leak(format!("https://{}", "a".repeat(300)).into());
        for (list, origin) in [
            (
                vec![("origin", "https://a.example")],
                Some("https://a.example"),
            ),
            (vec![("origin", "null")], Some("null")),
            (
                vec![
                    ("origin", "https://a.example"),
                    ("origin", "https://a.example"),
                ],
                None,
            ),
            (
                vec![("origin", "https://a.example https://b.example")],
                None,
            ),
            (
                vec![("origin", "https://a.example, https://b.example")],
                None,
            ),
            (vec![("origin", "")], None),
            (vec![("origin", "a.example")], None),
            (vec![("origin", long)], None),
            (vec![], None),
        ] {
            assert_eq!(origin_of(&headers(&list)), origin, "{list:?}");
        }
        let mut strange = HeaderMap::new();
        strange.insert(
            ORIGIN,
            HeaderValue::from_bytes(b"https://\xff.example").unwrap(),
        );
        assert_eq!(origin_of(&strange), None);
    }

    #[test]
    fn headers_are_allowed_as_asked_for_within_reason() {
        let allowed = |list: &[(&'static str, &'static str)]| {
            allowed_headers(&headers(list)).to_str().unwrap().to_owned()
        };
        const ASKED: &str = "access-control-request-headers";
        assert_eq!(allowed(&[]), HEADERS);
        assert_eq!(allowed(&[(ASKED, "Content-Type, x-api-key")]), HEADERS);
        assert_eq!(
            allowed(&[(ASKED, "b3,x-api-key"), (ASKED, " sentry-trace , ,a b,a(b")]),
            format!("{HEADERS}, b3, sentry-trace")
        );
        let many: &'static str = Box::leak("x-a,".repeat(600).into());
        assert_eq!(allowed(&[(ASKED, many)]), HEADERS);
    }
}
