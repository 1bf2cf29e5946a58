//! The paths that are served, and the spellings of them that are taken.
//!
//! A slash at the end is taken on every path. Doubled slashes (`http://host//v1/interactions`, from a base URL
//! that ends in one) and percent-encoded letters are taken only where events are posted: those paths
//! need a key, while a proxy in front may hide `/metrics` by comparing the path as it stands.

use percent_encoding::percent_decode_str;

use crate::event::table::Table;

/// Where health and metrics are.
pub(crate) const OPERATIONS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

const DESCRIPTION: &str = "/openapi.json";

/// The path of the endpoint that takes a table's events.
const fn endpoint(table: Table) -> &'static str {
    match table {
        Table::Exposures => "/v1/exposures",
        Table::Interactions => "/v1/interactions",
    }
}

/// The table whose events are posted to `path`, in any spelling.
pub(crate) fn table(path: &str) -> Option<Table> {
    let exact = Table::ALL
        .into_iter()
        .find(|&table| path == endpoint(table));
    exact.or_else(|| {
        Table::ALL
            .into_iter()
            .find(|&table| is_same(path, endpoint(table)))
    })
}

/// The path as the router knows it; `None` for paths that are served elsewhere, or not at all.
pub(crate) fn canonical(path: &str) -> Option<&'static str> {
    if let Some(table) = table(path) {
        return Some(endpoint(table));
    }
    let path = path.trim_end_matches('/');
    let mut others = OPERATIONS.into_iter().chain([DESCRIPTION]);
    others.find(|route| path == *route)
}

/// Whether two paths have the same segments, once empty ones are left out and the rest is decoded.
fn is_same(path: &str, route: &str) -> bool {
    let segments = |path| str::split(path, '/').filter(|segment: &&str| !segment.is_empty());
    let mut wanted = segments(route);
    segments(path).all(|given| {
        let same = |wanted: &str| percent_decode_str(given).eq(wanted.bytes());
        wanted.next().is_some_and(same)
    }) && wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_in_the_spellings_that_are_taken() {
        for (path, route) in [
            ("/v1/interactions", Some("/v1/interactions")),
            ("/v1/interactions/", Some("/v1/interactions")),
            ("/v1/interactions//", Some("/v1/interactions")),
            ("//v1//interactions", Some("/v1/interactions")),
            ("/v1/%69nteractions", Some("/v1/interactions")),
            ("/%761/exposures/", Some("/v1/exposures")),
            ("/v1%2Fexposures", None),
            ("/v1/exposures/x", None),
            ("/v1/exposures%20", None),
            ("/V1/exposures", None),
            ("/v1", None),
            ("/", None),
            ("", None),
            ("/metrics", Some("/metrics")),
            ("/metrics/", Some("/metrics")),
            ("//metrics", None),
            ("/%6detrics", None),
            ("/readyz/", Some("/readyz")),
            ("/openapi.json/", Some("/openapi.json")),
            ("/docs/", None),
        ] {
            assert_eq!(canonical(path), route, "{path}");
        }
    }
}
