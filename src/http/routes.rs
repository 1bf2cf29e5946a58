//! Which paths there are, and which listener serves them.

use axum::http::Uri;

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
    /// Readers of the documentation.
    Readers,
}

/// A path, or for `/docs` all below it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) audience: Audience,
}

/// The path of the endpoint that takes a table's events.
pub(crate) const fn path(table: Table) -> &'static str {
    match table {
        Table::Exposures => "/v1/exposures",
        Table::Interactions => "/v1/interactions",
    }
}

/// The page of codes.
pub(crate) const PROBLEMS: &str = "/problems";

/// The pages of the description.
pub(crate) const DOCS: &str = "/docs";

/// All paths.
pub(crate) const ROUTES: [Route; 8] = [
    Route::new(path(Table::Interactions), Audience::Senders),
    Route::new(path(Table::Exposures), Audience::Senders),
    Route::new("/healthz", Audience::Balancers),
    Route::new("/readyz", Audience::Monitoring),
    Route::new("/metrics", Audience::Monitoring),
    Route::new("/openapi.json", Audience::Readers),
    Route::new(DOCS, Audience::Readers),
    Route::new(PROBLEMS, Audience::Readers),
];

impl Route {
    const fn new(path: &'static str, audience: Audience) -> Self {
        Self { path, audience }
    }

    /// The route of a path.
    pub(crate) fn of(uri: &Uri) -> Option<&'static Self> {
        let path = uri.path();
        ROUTES.iter().find(|route| {
            let rest = path.strip_prefix(route.path);
            rest.is_some_and(|rest| {
                rest.is_empty() || (route.path == DOCS && rest.starts_with('/'))
            })
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_listener_has_the_events_and_the_health_alone() {
        for (path, public) in [
            ("/v1/exposures", Some(true)),
            ("/v1/interactions?ack=durable", Some(true)),
            ("/healthz", Some(true)),
            ("/readyz?verbose", Some(false)),
            ("/metrics", Some(false)),
            ("/openapi.json", Some(false)),
            ("/docs", Some(false)),
            ("/docs/index.html", Some(false)),
            ("/problems", Some(false)),
            ("/docsx", None),
            ("/metrics/x", None),
            ("/", None),
        ] {
            let route = Route::of(&path.parse().unwrap());
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
