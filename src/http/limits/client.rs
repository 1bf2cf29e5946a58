//! The address of the client of a request, which may have come through proxies.
//!
//! Only what trusted proxies wrote is believed: the peer has to be one, and the list that it sends
//! is read from its end, where the last proxy wrote, up to the first address that is not a trusted
//! proxy. What stands before that is the client's own word.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::http::connection::proxies::{TrustedProxies, client};

/// The address that a request counts for; IPv6 addresses count by their /64.
///
/// `None` for a trusted proxy that names no client: its address stands for many.
pub(crate) fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    proxies: &TrustedProxies,
) -> Option<IpAddr> {
    if !proxies.contain(peer) {
        return Some(client(peer));
    }
    let listed = named(peer, list(headers, "x-forwarded-for"), proxies, plain);
    let forwarded = named(peer, list(headers, "forwarded"), proxies, forwarded_for);
    match (listed, forwarded) {
        // A proxy that writes one of the two may pass on the other as the client wrote it. If they
        // contradict each other, neither is believed.
        (Some(one), Some(other)) if one != other => Some(client(peer)),
        (one, other) => one.or(other),
    }
}

/// The elements of a list field, from the last one on.
fn list<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> impl Iterator<Item = Option<&'h str>> + use<'h> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(|line| {
        let line = line.to_str().ok();
        let elements: Vec<_> = match line {
            Some(line) => line.rsplit(',').map(Some).collect(),
            None => vec![None],
        };
        elements.into_iter()
    })
}

/// The last address that is not a trusted proxy's. If all are, the first; if one cannot be read,
/// the one after it, which reported it.
fn named<'h>(
    peer: IpAddr,
    elements: impl Iterator<Item = Option<&'h str>>,
    proxies: &TrustedProxies,
    parse: impl Fn(&str) -> Option<IpAddr>,
) -> Option<IpAddr> {
    let mut last = None;
    for element in elements {
        let Some(address) = element.and_then(&parse) else {
            return Some(client(last.unwrap_or(peer)));
        };
        last = Some(address);
        if !proxies.contain(address) {
            break;
        }
    }
    last.map(client)
}

/// An address of X-Forwarded-For, which some proxies write with a port.
fn plain(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text.rsplit_once(':')?.0,
    };
    host.parse().ok()
}

/// The `for` parameter of an element of Forwarded (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| plain(value))?
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_client_is_who_the_last_trusted_proxy_saw() {
        const XFF: &str = "x-forwarded-for";
        const FWD: &str = "forwarded";
        let proxies: TrustedProxies = "10.0.0.0/8,fd00::/8".parse().unwrap();
        for (peer, fields, expected) in [
            // Who is not trusted is not believed.
            ("9.9.9.9", &[(XFF, "1.1.1.1")][..], Some("9.9.9.9")),
            ("2001:db8::1:2", &[], Some("2001:db8::")),
            ("10.0.0.1", &[], None),
            ("10.0.0.1", &[(XFF, "1.1.1.1")], Some("1.1.1.1")),
            ("::ffff:10.0.0.1", &[(XFF, "1.1.1.1")], Some("1.1.1.1")),
            ("10.0.0.1", &[(XFF, "6.6.6.6, 1.1.1.1")], Some("1.1.1.1")),
            (
                "10.0.0.1",
                &[(XFF, "6.6.6.6,1.1.1.1 , 10.2.2.2")],
                Some("1.1.1.1"),
            ),
            (
                "10.0.0.1",
                &[(XFF, "6.6.6.6"), (XFF, "1.1.1.1")],
                Some("1.1.1.1"),
            ),
            ("10.0.0.1", &[(XFF, "10.3.3.3,10.2.2.2")], Some("10.3.3.3")),
            ("10.0.0.1", &[(XFF, "1.1.1.1:4711")], Some("1.1.1.1")),
            ("10.0.0.1", &[(XFF, "[2001:db8::1]:80")], Some("2001:db8::")),
            (
                "10.0.0.1",
                &[(XFF, "2001:db8:0:0:5::1")],
                Some("2001:db8::"),
            ),
            ("10.0.0.1", &[(XFF, "1.1.1.1, unknown")], Some("10.0.0.1")),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1, x, 10.2.2.2")],
                Some("10.2.2.2"),
            ),
            ("10.0.0.1", &[(XFF, "")], Some("10.0.0.1")),
            (
                "fd00::1",
                &[(FWD, "for=1.1.1.1;proto=https")],
                Some("1.1.1.1"),
            ),
            (
                "10.0.0.1",
                &[(FWD, r#"for=6.6.6.6, By=x;For="[2001:db8::9]:5""#)],
                Some("2001:db8::"),
            ),
            ("10.0.0.1", &[(FWD, "for=_hidden")], Some("10.0.0.1")),
            ("10.0.0.1", &[(FWD, "proto=https")], Some("10.0.0.1")),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1"), (FWD, "for=1.1.1.1")],
                Some("1.1.1.1"),
            ),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1"), (FWD, "for=6.6.6.6")],
                Some("10.0.0.1"),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let found = client_address(peer.parse().unwrap(), &headers, &proxies);
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(found, expected, "{peer} {fields:?}");
        }
    }
}
