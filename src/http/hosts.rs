//! Which hosts requests may name: a guard against DNS rebinding.
//!
//! A website can have its own name resolve to 127.0.0.1 and then read, in a visitor's browser, what
//! a service on that machine answers. The browser still sends the website's name as Host.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;

/// The hosts that requests may name.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Hosts with or without a port; ports do not matter.
    pub(crate) fn new(hosts: &[String]) -> Self {
        Self(
            hosts
                .iter()
                .filter_map(|host| name(host.as_bytes()))
                .collect(),
        )
    }

    /// Whether every host that the request names is among them. A request that names none is not a
    /// browser's.
    pub(crate) fn allow(&self, request: &Request) -> bool {
        let header = request.headers().get_all(HOST).iter();
        let mut named = header.map(|host| name(host.as_bytes())).chain(
            request
                .uri()
                .authority()
                .map(|host| name(host.as_str().as_bytes())),
        );
        named.all(|host| host.is_some_and(|host| self.0.contains(&host)))
    }
}

/// A host in lower case, without its port.
fn name(host: &[u8]) -> Option<String> {
    let authority = Authority::try_from(host).ok()?;
    Some(authority.host().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_listed_hosts_are_allowed_with_any_port() {
        let listed = [
            "localhost", "127.0.0.1", "[::1]", "127.0.0.5:8080", "My.test",
        ];
        let hosts = Hosts::new(&listed.map(str::to_owned));
        let request = |uri: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            request.body(Body::empty()).unwrap()
        };
        for (uri, host, allowed) in [
            ("/", Some("localhost"), true),
            ("/", Some("LOCALHOST:1"), true),
            ("/", Some("127.0.0.1:8080"), true),
            ("/", Some("[::1]:8080"), true),
            ("/", Some("[::1]"), true),
            ("/", Some("127.0.0.5"), true),
            ("/", Some("my.test:80"), true),
            ("/", None, true),
            ("http://localhost:1/", None, true),
            ("/", Some("evil.test"), false),
            ("/", Some("localhost.evil.test"), false),
            ("/", Some("127.0.0.1.evil.test:8080"), false),
            ("/", Some("10.0.0.1"), false),
            ("/", Some(""), false),
            ("http://evil.test/", Some("localhost"), false),
            ("http://evil.test/", None, false),
            ("http://localhost/", Some("evil.test"), false),
        ] {
            assert_eq!(hosts.allow(&request(uri, host)), allowed, "{uri} {host:?}");
        }
    }
}
