//! The caller's place in a trace: the `traceparent` header of W3C Trace Context.
//!
//! Invariant: a header that the specification calls invalid is ignored as a whole. Headers of later
//! versions are read as far as version 00 defines them.

use std::str::from_utf8;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Length of version 00: `00-<32 digits>-<16 digits>-<2 digits>`. Later versions may be longer.
const BYTES: usize = 55;

/// A trace, and the span in it that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent<'h> {
    /// 32 lower-case hexadecimal digits, not all zero.
    pub(crate) trace_id: &'h str,
    /// 16 lower-case hexadecimal digits, not all zero.
    pub(crate) parent_id: &'h str,
}

impl<'h> TraceParent<'h> {
    /// The only `traceparent` of a request, if it is valid.
    pub(crate) fn of(headers: &'h HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            _ => None,
        }
    }

    /// The only `traceparent` of a request as it is passed on, in version 00; `None` if it is not valid.
    pub(crate) fn passed_on(headers: &'h HeaderMap) -> Option<Arc<str>> {
        let Self {
            trace_id,
            parent_id,
        } = Self::of(headers)?;
        let text = headers.get(TRACEPARENT)?.as_bytes().trim_ascii();
        let flags = from_utf8(text.get(BYTES - 2..BYTES)?).ok()?;
        Some(format!("00-{trace_id}-{parent_id}-{flags}").into())
    }

    fn parse(text: &'h [u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let (known, more) = text.split_at_checked(BYTES)?;
        let mut parts = known.split(|&byte| byte == b'-');
        let version = digits(parts.next()?, 2)?;
        let trace_id = digits(parts.next()?, 32)?;
        let parent_id = digits(parts.next()?, 16)?;
        digits(parts.next()?, 2)?;
        let ends = match version {
            "00" => more.is_empty(),
            "ff" => false,
            _ => matches!(more.first(), None | Some(b'-')),
        };
        let is_set = |id: &str| id.bytes().any(|digit| digit != b'0');
        (ends && is_set(trace_id) && is_set(parent_id)).then_some(Self {
            trace_id,
            parent_id,
        })
    }
}

/// `text`, if it is exactly `count` lower-case hexadecimal digits.
fn digits(text: &[u8], count: usize) -> Option<&str> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let are_digits = text.len() == count && text.iter().all(is_digit);
    from_utf8(text).ok().filter(|_| are_digits)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    #[test]
    fn a_header_is_read_as_the_specification_says_or_ignored() {
        let zeros = "0".repeat(32);
        let upper = TRACE.to_uppercase();
        for (text, is_valid) in [
            (format!("00-{TRACE}-{PARENT}-01"), true),
            (format!("00-{TRACE}-{PARENT}-00"), true),
            (format!("00-{TRACE}-{PARENT}-ff"), true),
            (format!(" \t00-{TRACE}-{PARENT}-01 "), true),
            // Later versions may have further parts.
            (format!("cc-{TRACE}-{PARENT}-01"), true),
            (format!("cc-{TRACE}-{PARENT}-01-"), true),
            (
                format!("01-{TRACE}-{PARENT}-01-what-the-future-brings"),
                true,
            ),
            (format!("01-{TRACE}-{PARENT}-01.more"), false),
            (format!("01-{TRACE}-{PARENT}-011"), false),
            (format!("00-{TRACE}-{PARENT}-01-more"), false),
            (format!("00-{TRACE}-{PARENT}-01-"), false),
            (format!("ff-{TRACE}-{PARENT}-01"), false),
            (format!("0-{TRACE}-{PARENT}-01"), false),
            (format!("000-{TRACE}-{PARENT}-01"), false),
            (format!("0g-{TRACE}-{PARENT}-01"), false),
            (format!("00-{zeros}-{PARENT}-01"), false),
            (format!("00-{TRACE}-{}-01", &zeros[..16]), false),
            (format!("00-{upper}-{PARENT}-01"), false),
            (format!("00-{TRACE}-{}-01", PARENT.to_uppercase()), false),
            (format!("0A-{TRACE}-{PARENT}-01"), false),
            (format!("00-{TRACE}-{PARENT}-0A"), false),
            (format!("00-{TRACE}-{PARENT}-0"), false),
            (format!("00-{TRACE}-{PARENT}-"), false),
            (format!("00-{TRACE}-{PARENT}"), false),
            (format!("00-{}-{PARENT}-01", &TRACE[1..]), false),
            (format!("00-{TRACE}0-{}-01", &PARENT[1..]), false),
            (format!("00_{TRACE}_{PARENT}_01"), false),
            (
                format!("00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01"),
                false,
            ),
            ("é".repeat(40), false),
            (String::new(), false),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            headers.insert(TRACEPARENT, value.clone());
            let expected = is_valid.then_some(TraceParent {
                trace_id: TRACE,
                parent_id: PARENT,
            });
            assert_eq!(TraceParent::of(&headers), expected, "{text:?}");
            let passed_on = TraceParent::passed_on(&headers);
            let known = text.trim_ascii().get(2..BYTES).unwrap_or_default();
            let expected = expected.map(|_| format!("00{known}"));
            assert_eq!(passed_on.as_deref(), expected.as_deref(), "{text:?}");
            headers.append(TRACEPARENT, value);
            assert_eq!(TraceParent::of(&headers), None, "two of {text:?}");
        }
        assert_eq!(TraceParent::of(&HeaderMap::new()), None);
    }
}
