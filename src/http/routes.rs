//! Which paths there are, in which spellings, and which listener serves them.
//!
//! A slash at the end is taken on every path. Doubled slashes (`http://host//v1/interactions`, from a base URL
//! that ends in one) and percent-encoded letters are taken only where events are posted: those paths
//! need a key, while a proxy in front may hide `/metrics` by comparing the path as it stands.

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::event::formats::segment::rules::{Call, Type};
use crate::event::table::Table;

/// A listener, by what it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The only one: it serves everything.
    Only,
    /// `--listen` beside `--ops-listen`.
    Public,
    /// `--ops-listen`. It serves everything, so that the examples of `/docs` work there.
    Operators,
}

/// Who uses a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Senders of events.
    Senders,
    /// Load balancers, which see the public listener alone.
    Balancers,
    /// Operators and their monitoring.
    Monitoring,
    /// Operators, with a key.
    Operators,
    /// Readers of the documentation, and of the live page's files.
    Readers,
}

/// A path, or for `/docs` all below it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) audience: Audience,
    /// What is posted there.
    pub(crate) posts: Option<Posts>,
}

/// What is posted to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posts {
    /// Events of a table.
    Events(Table),
    /// Messages of Segment's shape.
    Messages(Call),
}

/// The path of the endpoint that takes a table's events.
pub(crate) const fn path(table: Table) -> &'static str {
    table.path()
}

/// The page of codes.
pub(crate) const PROBLEMS: &str = "/problems";

/// The live page.
pub(crate) const PAGE: &str = "/";

/// The pages of the description.
pub(crate) const DOCS: &str = "/docs";

/// All paths.
pub(crate) const ROUTES: [Route; 15] = [
    Route::events(Table::Interactions),
    Route::events(Table::Exposures),
    Route::events(Table::Assignments),
    Route::new("/healthz", Audience::Balancers),
    Route::new("/readyz", Audience::Monitoring),
    Route::new("/metrics", Audience::Monitoring),
    Route::new("/openapi.json", Audience::Readers),
    Route::new(DOCS, Audience::Readers),
    Route::new(PROBLEMS, Audience::Readers),
    Route::new(PAGE, Audience::Readers),
    Route::new("/live", Audience::Operators),
    Route::new("/live/page.css", Audience::Readers),
    Route::new("/live/page.js", Audience::Readers),
    Route::new("/live/uplot.css", Audience::Readers),
    Route::new("/live/uplot.js", Audience::Readers),
];

/// The routes of Segment's shape, also below `--segment-prefix`; the short ones are those of its
/// libraries for browsers.
pub(crate) const SEGMENT_ROUTES: [Route; 15] = [
    Route::segment("/v1/batch", Call::Batch),
    Route::segment("/v1/import", Call::Batch),
    Route::segment("/v1/track", Call::One(Type::Track)),
    Route::segment("/v1/identify", Call::One(Type::Identify)),
    Route::segment("/v1/page", Call::One(Type::Page)),
    Route::segment("/v1/screen", Call::One(Type::Screen)),
    Route::segment("/v1/group", Call::One(Type::Group)),
    Route::segment("/v1/alias", Call::One(Type::Alias)),
    Route::segment("/v1/b", Call::Batch),
    Route::segment("/v1/t", Call::One(Type::Track)),
    Route::segment("/v1/i", Call::One(Type::Identify)),
    Route::segment("/v1/p", Call::One(Type::Page)),
    Route::segment("/v1/s", Call::One(Type::Screen)),
    Route::segment("/v1/g", Call::One(Type::Group)),
    Route::segment("/v1/a", Call::One(Type::Alias)),
];

impl Route {
    const fn new(path: &'static str, audience: Audience) -> Self {
        Self {
            path,
            audience,
            posts: None,
        }
    }

    const fn segment(path: &'static str, call: Call) -> Self {
        Self {
            posts: Some(Posts::Messages(call)),
            ..Self::new(path, Audience::Senders)
        }
    }

    const fn events(table: Table) -> Self {
        Self {
            posts: Some(Posts::Events(table)),
            ..Self::new(path(table), Audience::Senders)
        }
    }

    /// The route of a path, in any spelling; `segment_prefix` may stand before those of Segment's shape.
    pub(crate) fn of(uri: &Uri, segment_prefix: Option<&str>) -> Option<&'static Self> {
        let path = uri.path();
        let exact = ROUTES.iter().find(|route| route.path == path);
        let meant = |routes: &'static [Self], path: &str| {
            let exact = routes.iter().find(|route| route.path == path);
            exact.or_else(|| routes.iter().find(|route| route.is_meant_by(path)))
        };
        let below = || behind(path, segment_prefix?);
        exact
            .or_else(|| meant(&ROUTES, path))
            .or_else(|| meant(&SEGMENT_ROUTES, path))
            .or_else(|| meant(&SEGMENT_ROUTES, below()?))
    }

    fn is_meant_by(&self, path: &str) -> bool {
        if self.posts.is_some() {
            return is_same(path, self.path);
        }
        match path.strip_prefix(self.path) {
            Some(rest) if self.path == DOCS => rest.is_empty() || rest.starts_with('/'),
            Some(rest) => rest.bytes().all(|byte| byte == b'/'),
            None => false,
        }
    }

    /// The path as the router knows it; `None` where what follows it counts.
    pub(crate) fn spelling(&self) -> Option<&'static str> {
        (self.path != DOCS).then_some(self.path)
    }

    /// Whether a listener serves it.
    pub(crate) fn is_on(&self, port: Port) -> bool {
        match port {
            Port::Only | Port::Operators => true,
            Port::Public => matches!(self.audience, Audience::Senders | Audience::Balancers),
        }
    }

    /// Whether it is served beyond the cap on connections, too.
    pub(crate) fn is_always_served(&self) -> bool {
        matches!(self.audience, Audience::Balancers | Audience::Monitoring)
    }
}

/// What stands behind a prefix in a path, in any spelling of the two.
fn behind<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let mut rest = path;
    for wanted in prefix.split('/').filter(|segment| !segment.is_empty()) {
        rest = rest.trim_start_matches('/');
        let (given, behind) = rest.split_at(rest.find('/')?);
        if !percent_decode_str(given).eq(wanted.bytes()) {
            return None;
        }
        rest = behind;
    }
    Some(rest)
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
            ("/v1/assignments/", Some("/v1/assignments")),
            ("//v1/assign%6Dents", Some("/v1/assignments")),
            ("/v1/exposures%20", None),
            ("/V1/exposures", None),
            ("/v1", None),
            ("/", Some("/")),
            ("/live", Some("/live")),
            ("/live/", Some("/live")),
            ("/live/page.js", Some("/live/page.js")),
            ("/live/page.js.map", None),
            ("/live/x", None),
            ("/livex", None),
            ("/metrics", Some("/metrics")),
            ("/metrics/", Some("/metrics")),
            ("/%6detrics", None),
            ("/readyz/", Some("/readyz")),
            ("/openapi.json/", Some("/openapi.json")),
            ("/docs/", Some("/docs")),
        ] {
            let found = Route::of(&path.parse().unwrap(), None);
            assert_eq!(found.map(|route| route.path), route, "{path}");
        }
    }

    #[test]
    fn the_routes_of_segments_shape_are_there_with_and_without_a_prefix() {
        for (path, alone, below) in [
            ("/v1/batch", Some("/v1/batch"), Some("/v1/batch")),
            ("//v1/t/", Some("/v1/t"), Some("/v1/t")),
            ("/v1/%74rack", Some("/v1/track"), Some("/v1/track")),
            ("/segment/v1/batch", None, Some("/v1/batch")),
            ("//segment//v1/p/", None, Some("/v1/p")),
            ("/%73egment/v1/p", None, Some("/v1/p")),
            ("/segment/v1/interactions", None, None),
            ("/segment/healthz", None, None),
            ("/segmentv1/batch", None, None),
            ("/segment", None, None),
            ("/v1/bat", None, None),
        ] {
            for (prefix, expected) in [(None, alone), (Some("/segment"), below)] {
                let found = Route::of(&path.parse().unwrap(), prefix);
                assert_eq!(found.map(|route| route.path), expected, "{path}");
            }
        }
    }

    #[test]
    fn the_public_listener_has_the_events_and_the_health_alone() {
        for (path, public) in [
            ("/v1/exposures", Some(true)),
            ("/v1/interactions?ack=durable", Some(true)),
            ("/v1/assignments", Some(true)),
            ("/healthz", Some(true)),
            ("/readyz?verbose", Some(false)),
            ("/metrics", Some(false)),
            ("/openapi.json", Some(false)),
            ("/docs", Some(false)),
            ("/docs/index.html", Some(false)),
            ("/problems", Some(false)),
            ("/docsx", None),
            ("/metrics/x", None),
            ("/", Some(false)),
            ("/live", Some(false)),
            ("/live/uplot.js", Some(false)),
        ] {
            let route = Route::of(&path.parse().unwrap(), None);
            assert_eq!(
                route.map(|route| route.is_on(Port::Public)),
                public,
                "{path}"
            );
            for port in [Port::Only, Port::Operators] {
                assert!(route.is_none_or(|route| route.is_on(port)), "{path}");
            }
        }
    }
}
