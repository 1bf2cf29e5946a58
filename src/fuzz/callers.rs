//! Who calls: headers, and the bytes of heads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    HOST, HeaderName, ORIGIN, TRANSFER_ENCODING,
};
use axum::http::{HeaderMap, HeaderValue, Uri};

use super::input::choice;
use crate::http::auth::presented;
use crate::http::connection::heads::Heads;
use crate::http::connection::proxies::{TrustedProxies, client};
use crate::http::cors;
use crate::http::hosts::Hosts;
use crate::http::ingest::body::inflate::Encoding;
use crate::http::ingest::body::read::announced_bytes;
use crate::http::ingest::content_type;
use crate::http::limits::client::client_address;
use crate::http::message;
use crate::http::routes::Route;
use crate::http::traceparent::TraceParent;
use crate::tenants::settings::Origins;

/// One header for each line that may be a value; the names take turns.
fn headers(data: &[u8], names: &[HeaderName]) -> HeaderMap {
    let lines = data.split(|byte| *byte == b'\n');
    let values = lines.map(HeaderValue::from_bytes).zip(names.iter().cycle());
    let mut headers = HeaderMap::new();
    for (value, name) in values.take(8) {
        if let Ok(value) = value {
            headers.append(name, value);
        }
    }
    headers
}

fn owned(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn trace_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    ])
}

/// A trace is what the specification calls one.
pub(super) fn traceparent(data: &[u8]) {
    let headers = headers(data, &[HeaderName::from_static("traceparent")]);
    let Some(parent) = TraceParent::of(&headers) else {
        return;
    };
    for (id, length) in [(parent.trace_id, 32), (parent.parent_id, 16)] {
        assert_eq!(id.len(), length);
        assert!(
            id.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        );
        assert!(id.bytes().any(|byte| byte != b'0'));
    }
}

pub(super) fn origin_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "https://shop.example\nhttps://shop.example,https://*.shop.example:8443,null\nhost",
        "http://[::1]:8080\n*\n[::1]:8080",
        "https://a.shop.example\nHTTPS://*.Shop.example\nshop.example\nx-a, x-b",
        "null\nnull\n127.0.0.1",
    ])
}

/// An origin is one; a list is read as it prints, and does not allow what it does not name.
pub(super) fn origins(data: &[u8]) {
    let names = [
        ORIGIN,
        HeaderName::from_static("list"),
        HOST,
        ACCESS_CONTROL_REQUEST_HEADERS,
    ];
    let headers = headers(data, &names);
    let allowed = cors::allowed_headers(&headers);
    assert!(allowed.len() < 8192);
    let is_same = cors::is_same_origin(&headers);
    let Some(origin) = cors::origin_of(&headers) else {
        assert!(!is_same);
        return;
    };
    assert!(!origin.is_empty() && !origin.contains([' ', ',']));
    let list = headers.get("list").and_then(|list| list.to_str().ok());
    let Some(Ok(list)) = list.map(|list| Origins::parse(list.split(','))) else {
        return;
    };
    let all: Vec<String> = list.clone().into();
    assert_eq!(
        Origins::parse(all.iter().map(String::as_str)),
        Ok(list.clone())
    );
    if list.allow(origin) {
        let origin = origin.to_ascii_lowercase();
        let named = |entry: &String| {
            let (_, domain) = entry.split_once('*').unwrap_or(("", entry.as_str()));
            origin.ends_with(&domain.to_ascii_lowercase())
        };
        assert!(all.iter().any(named), "{origin} by {all:?}");
    }
}

pub(super) fn forwarded_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "6.6.6.6, 1.1.1.1 , 10.2.2.2\nfor=1.1.1.1;proto=https",
        "[2001:db8::1]:80\nfor=6.6.6.6, By=x;For=\"[2001:db8::9]:5\"",
        "1.1.1.1:4711\nfor=_hidden\n10.0.0.1",
        "unknown\nfor=unknown",
    ])
}

/// Only a trusted proxy is believed, and the address is one that limits count by.
pub(super) fn forwarded(data: &[u8]) {
    let names = ["x-forwarded-for", "forwarded"].map(HeaderName::from_static);
    let headers = headers(data, &names);
    let proxies: TrustedProxies = "10.0.0.0/8,fd00::/8".parse().expect("two networks");
    for stranger in [
        IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 5, 0, 0, 1)),
    ] {
        assert_eq!(
            client_address(stranger, &headers, &proxies),
            Some(client(stranger))
        );
    }
    let proxy = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    if let Some(address) = client_address(proxy, &headers, &proxies) {
        assert_eq!(client(address), address);
    }
    assert!(headers.is_empty() || client_address(proxy, &headers, &proxies).is_some());
}

pub(super) fn key_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "key\nBearer key\nkey", "\nBasic a2V5OnBhc3M=\n", "kéy\nbasic  a2V5Og\n ",
        "\"key\"\nDigest x\na b", "key\nBasic ***\n",
    ])
}

/// A key that is looked up is not blank and not long.
pub(super) fn keys(data: &[u8]) {
    let names = [
        HeaderName::from_static("x-api-key"),
        AUTHORIZATION,
        HeaderName::from_static("query"),
    ];
    let headers = headers(data, &names);
    let query = headers.get("query").and_then(|value| value.to_str().ok());
    let mut found = 0;
    for key in presented::keys(&headers, query) {
        found += 1;
        if let Ok(key) = key {
            assert!(!key.trim().is_empty() && key.len() <= 512);
        }
    }
    assert!(found <= headers.len() + 1);
    assert!(!presented::uses_basic_alone(&headers, query) || headers.contains_key(AUTHORIZATION));
}

pub(super) fn head_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "\x01POST /v1/interactions HTTP/1.1\r\nhost: a\r\n\r\n{\n}",
        "\x03\r\nGET / HTTP/1.1\nhost: a\n\n",
        "\x05application/json; charset=\"utf-8\"\ngzip, identity\n12\nchunked\nlocalhost:80",
        "\x02/v1/%69nteractions//\n",
        "\x07//metrics\ntext/plain\nbr\n-1\ngzip, chunked\n[::1]",
    ])
}

/// Heads come out as they came in but for bare LFs, however they are cut; headers are read.
pub(super) fn heads(data: &[u8]) {
    let (piece, data) = choice(data);
    let mut whole = data.to_vec();
    let is_spoilt = Heads::default().check(0, &mut whole);
    assert_eq!(is_spoilt, whole != data);
    let differs = whole.iter().zip(data).filter(|(one, other)| one != other);
    assert!(
        differs
            .clone()
            .all(|(one, other)| (*one, *other) == (0, b'\n'))
    );
    let mut pieces = data.to_vec();
    let mut heads = Heads::default();
    for piece in pieces.chunks_mut(usize::from(piece) + 1) {
        heads.check(0, piece);
    }
    assert_eq!(pieces, whole);

    let names = [
        CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, HOST,
    ];
    let headers = headers(data, &names);
    drop(content_type::framing(&headers));
    drop(Encoding::of(&headers));
    announced_bytes(&headers);
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(uri) = Uri::try_from(line) else { return };
    if let Some(route) = Route::of(&uri, Some("/s"))
        && route.posts.is_some()
    {
        assert!(uri.path().len() >= route.path.len());
    }
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    drop(message::malformed(&request));
    let hosts = Hosts::new(&["localhost".to_owned()]);
    if hosts.allow(&request)
        && let Some(host) = request.headers().get(HOST)
    {
        let host = String::from_utf8_lossy(host.as_bytes()).to_ascii_lowercase();
        assert!(host.contains("localhost"), "{host}");
    }
}
