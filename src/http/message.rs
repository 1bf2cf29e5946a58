//! Checks of a request as a message, before anything is made of it.
//!
//! What two programs could read differently is refused: a proxy and this service would disagree
//! about where the next request begins, or which host it is for.
//!
//! A length beside chunks is not seen here: the parser drops it, reads the chunks, and ends the
//! connection with the answer (RFC 9112, 6.3), so that no next request is read.

use axum::extract::Request;
use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, Version};

use super::problem::Problem;

/// What is wrong with a request as a message (RFC 9112), beyond what the parser checks.
pub(crate) fn malformed(request: &Request) -> Option<Problem> {
    if request.version() >= Version::HTTP_2 {
        return None;
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, None) if request.version() < Version::HTTP_11 => None,
        (Some(host), None) => Some(host),
        (None, _) => return Some(bad_host("the request has no Host header")),
        (Some(_), Some(_)) => return Some(bad_host("the request has more than one Host header")),
    };
    if host.is_some_and(|host| !is_host(host)) {
        return Some(bad_host(
            "the Host header is not a host with an optional port",
        ));
    }
    // The parser has checked that the last coding is chunked.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|first| !plain(first)) || codings.next().is_some() {
        return Some(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "unsupported_transfer_encoding",
            "Transfer-Encoding is chunked and nothing else; compress with Content-Encoding",
        ));
    }
    None
}

fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    if host.is_empty() || host.contains(&b'@') {
        return host.is_empty();
    }
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    let port = &authority.as_str()[authority.host().len()..];
    // A port may be blank (RFC 3986, 3.2.3).
    matches!(port, "" | ":") || authority.port_u16().is_some()
}

fn bad_host(detail: &str) -> Problem {
    Problem::bad_request("invalid_host", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_message_is_looked_at_as_rfc_9112_says() {
        let check = |version, headers: &[(HeaderName, &'static str)]| {
            let mut request = Request::new(Body::empty());
            *request.version_mut() = version;
            for (name, value) in headers {
                let value = HeaderValue::from_static(value);
                request.headers_mut().append(name, value);
            }
            let problem = malformed(&request)?;
            Some(problem.render("/", "r", true).status().as_u16())
        };
        let one = (HOST, "a:80");
        for (version, headers, status) in [
            (Version::HTTP_11, vec![], Some(400)),
            (Version::HTTP_10, vec![], None),
            (Version::HTTP_2, vec![], None),
            (Version::HTTP_11, vec![one.clone()], None),
            (Version::HTTP_11, vec![(HOST, "")], None),
            (Version::HTTP_11, vec![(HOST, "[::1]:8080")], None),
            (Version::HTTP_11, vec![(HOST, "a:")], None),
            (Version::HTTP_11, vec![(HOST, "a:65535")], None),
            (Version::HTTP_11, vec![(HOST, "a:65536")], Some(400)),
            (Version::HTTP_11, vec![(HOST, "a:x")], Some(400)),
            (Version::HTTP_11, vec![one.clone(), one.clone()], Some(400)),
            (Version::HTTP_10, vec![one.clone(), one.clone()], Some(400)),
            (Version::HTTP_11, vec![(HOST, "a, b")], Some(400)),
            (Version::HTTP_11, vec![(HOST, "a/b")], Some(400)),
            (Version::HTTP_11, vec![(HOST, "u@a")], Some(400)),
            (
                Version::HTTP_11,
                vec![one.clone(), (TRANSFER_ENCODING, "Chunked")],
                None,
            ),
            (
                Version::HTTP_11,
                vec![one.clone(), (TRANSFER_ENCODING, "gzip, chunked")],
                Some(501),
            ),
            (
                Version::HTTP_11,
                vec![
                    one,
                    (TRANSFER_ENCODING, "gzip"),
                    (TRANSFER_ENCODING, "chunked"),
                ],
                Some(501),
            ),
        ] {
            assert_eq!(check(version, &headers), status, "{version:?} {headers:?}");
        }
    }
}
