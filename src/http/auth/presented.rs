//! The API keys that a request presents, in the ways that clients have.
//!
//! Knows nothing of which keys exist.

use std::borrow::Cow;

use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Longest key that is looked up; issued keys have 68 characters.
const KEY_BYTES_MAX: usize = 512;

/// Base64 as clients write it: with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

const OWN: HeaderName = HeaderName::from_static("x-api-key");

/// A key, or why what stands in its place cannot be one.
pub(crate) type Presented<'r> = Result<Cow<'r, str>, &'static str>;

/// The keys in `X-API-Key`, in `Authorization`, and in the query, in this order. Blank ones are left
/// out: a template whose variable is unset sends them.
pub(crate) fn keys<'r>(
    headers: &'r HeaderMap,
    query_key: Option<&'r str>,
) -> impl Iterator<Item = Presented<'r>> {
    let own = headers.get_all(OWN).iter().map(|value| {
        let text = value.to_str();
        text.map(Cow::Borrowed)
            .map_err(|_| "X-API-Key holds bytes that no API key has")
    });
    let authorizations = headers.get_all(AUTHORIZATION).iter();
    // A plus sign in a query means a space, unless the key was written without encoding.
    let plus = query_key
        .filter(|key| key.trim().contains(' '))
        .map(|key| Cow::Owned(key.trim().replace(' ', "+")));
    let in_query = query_key.map(Cow::Borrowed).into_iter().chain(plus);
    own.chain(authorizations.filter_map(authorized))
        .chain(in_query.map(Ok))
        .filter(|key| !matches!(key, Ok(key) if key.trim().is_empty()))
        .map(|key| match key {
            Ok(key) if key.len() > KEY_BYTES_MAX => Err("the API key is too long to be one"),
            key => key,
        })
}

/// Whether the request authenticates by Basic and in no other way.
pub(crate) fn uses_basic_alone(headers: &HeaderMap, query_key: Option<&str>) -> bool {
    let is_blank = |value: &HeaderValue| value.as_bytes().trim_ascii().is_empty();
    headers.get_all(OWN).iter().all(is_blank)
        && query_key.is_none_or(|key| key.trim().is_empty())
        && headers
            .get_all(AUTHORIZATION)
            .iter()
            .any(|value| matches!(scheme(value), Some((Scheme::Basic, _))))
}

enum Scheme {
    Basic,
    Bearer,
}

/// The scheme of an `Authorization` header, and what stands behind it. Other schemes are not ours: a
/// proxy may have sent them on.
fn scheme(value: &HeaderValue) -> Option<(Scheme, &[u8])> {
    let value = value.as_bytes().trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace);
    let (name, rest) = value.split_at(end.unwrap_or(value.len()));
    let scheme = match name {
        name if name.eq_ignore_ascii_case(b"basic") => Scheme::Basic,
        name if name.eq_ignore_ascii_case(b"bearer") => Scheme::Bearer,
        _ => return None,
    };
    Some((scheme, rest.trim_ascii()))
}

/// The key in an `Authorization` header: Bearer's token, or Basic's user.
fn authorized(value: &HeaderValue) -> Option<Presented<'_>> {
    let (scheme, rest) = scheme(value)?;
    Some(match scheme {
        Scheme::Bearer => str::from_utf8(rest)
            .map(Cow::Borrowed)
            .map_err(|_| "the token in Authorization holds bytes that no API key has"),
        Scheme::Basic => basic_user(rest)
            .map(Cow::Owned)
            .ok_or("what follows Basic in Authorization is not the base64 of user:password"),
    })
}

fn basic_user(encoded: &[u8]) -> Option<String> {
    // The URL-safe alphabet differs in two signs.
    let standard: Vec<u8> = encoded
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    let mut user = BASE64.decode(standard).ok()?;
    if let Some(colon) = user.iter().position(|byte| *byte == b':') {
        user.truncate(colon);
    }
    String::from_utf8(user).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const API_KEY: &str = "x-api-key";

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(*name, value);
        }
        headers
    }

    #[test]
    fn a_key_is_found_however_it_is_written() {
        const AUTH: &str = "authorization";
        // "key:", "key:password", "key", "~?>:" in both alphabets, ":".
        for (given, query, expected) in [
            (vec![(API_KEY, "key")], None, vec![Ok("key")]),
            (vec![(API_KEY, ""), (API_KEY, "key")], None, vec![Ok("key")]),
            (vec![(AUTH, "Bearer key")], None, vec![Ok("key")]),
            (vec![(AUTH, "BEARER \t key ")], None, vec![Ok("key")]),
            (vec![(AUTH, "bearer")], None, vec![]),
            (vec![(AUTH, "Bearer  ")], Some("key"), vec![Ok("key")]),
            (vec![(AUTH, "Basic a2V5Og==")], None, vec![Ok("key")]),
            (vec![(AUTH, "basic  a2V5Og")], None, vec![Ok("key")]),
            (
                vec![(AUTH, "BASIC a2V5OnBhc3N3b3Jk")],
                None,
                vec![Ok("key")],
            ),
            (vec![(AUTH, "Basic a2V5")], None, vec![Ok("key")]),
            (vec![(AUTH, "Basic fj8+Og==")], None, vec![Ok("~?>")]),
            (vec![(AUTH, "Basic fj8-Og")], None, vec![Ok("~?>")]),
            (vec![(AUTH, "Basic Og==")], Some("key"), vec![Ok("key")]),
            (vec![(AUTH, "Basic")], Some("key"), vec![Ok("key")]),
            (
                vec![(AUTH, "Basic a")],
                Some("key"),
                vec![
                    Err("what follows Basic in Authorization is not the base64 of user:password"),
                    Ok("key"),
                ],
            ),
            (vec![(AUTH, "Digest key")], None, vec![]),
            (vec![(AUTH, "key")], None, vec![]),
            (
                vec![(AUTH, "Bearer b"), (API_KEY, "a")],
                Some("c"),
                vec![Ok("a"), Ok("b"), Ok("c")],
            ),
            (vec![(API_KEY, " ")], Some(" "), vec![]),
            (vec![], Some("a b"), vec![Ok("a b"), Ok("a+b")]),
            (vec![], Some(" a "), vec![Ok(" a ")]),
            (
                vec![(API_KEY, "kéy")],
                None,
                vec![Err("X-API-Key holds bytes that no API key has")],
            ),
        ] {
            let headers = headers(&given);
            let found: Vec<_> = keys(&headers, query).collect();
            let found: Vec<_> = found
                .iter()
                .map(|key| key.as_deref().map_err(|reason| *reason))
                .collect();
            assert_eq!(found, expected, "{given:?} {query:?}");
        }
    }

    #[test]
    fn only_basic_alone_is_basic() {
        const BASIC: (&str, &str) = ("authorization", "bAsIc a2V5Og==");
        for (given, query, expected) in [
            (vec![BASIC], None, true),
            (vec![BASIC, (API_KEY, " ")], Some(""), true),
            (vec![BASIC, (API_KEY, "a")], None, false),
            (vec![BASIC], Some("a"), false),
            (vec![("authorization", "Bearer a")], None, false),
            (vec![], None, false),
        ] {
            let found = uses_basic_alone(&headers(&given), query);
            assert_eq!(found, expected, "{given:?} {query:?}");
        }
    }
}
