//! The headers that protect a person who reads an answer in a browser.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};

use super::routes::{Audience, DOCS, PAGE, Route};

/// An answer is data: a browser that shows it loads nothing and runs nothing.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The pages of the description run the scripts that come with them, and call this service. Their
/// styles are partly set by those scripts.
const OWN_SCRIPTS: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The live page runs its own scripts and styles alone, and asks this service alone.
const OWN_FILES: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// How many headers [`protect`] adds at most.
pub(crate) const ADDED_MAX: usize = 5;

/// Adds the headers to an answer of a route that is known.
pub(crate) fn protect(headers: &mut HeaderMap, route: Option<&Route>, is_https: bool) {
    let policy = match route.map(|route| route.path) {
        Some(DOCS) => OWN_SCRIPTS,
        Some(PAGE) => OWN_FILES,
        _ => NOTHING,
    };
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The pages of the description change with the program alone.
    if route.is_none_or(|route| route.audience != Audience::Readers) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if is_https {
        // A year, as in the rest of the suite; a name that has other ports keeps its subdomains.
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(STRICT_TRANSPORT_SECURITY, year);
    }
}
