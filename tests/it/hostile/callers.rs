//! Keys in strange places, other tenants, and queries.

use recsys_ingest::tenants::role::Role;

use super::Answer::{Problem, Stored};
use super::{PATH, Row};
use crate::harness::{OTHER, key};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = keys();
    rows.extend(queries());
    rows
}

/// A post of one event with these header lines instead of a key.
fn with(what: &str, lines: impl AsRef<[u8]>, answer: super::Answer) -> Row {
    asked(what, "", lines, answer)
}

fn asked(what: &str, query: &str, lines: impl AsRef<[u8]>, answer: super::Answer) -> Row {
    let head = format!("POST {PATH}{query} HTTP/1.1\r\nhost: test\r\n");
    let rest = b"content-length: LEN\r\n\r\nEVENT";
    Row::raw(
        what,
        [head.as_bytes(), lines.as_ref(), rest].concat(),
        answer,
    )
}

fn keys() -> Vec<Row> {
    let missing = Problem(401, "missing_api_key");
    let invalid = Problem(401, "invalid_api_key");
    let other = key("other", Role::Ingest);
    let asleep = key("asleep", Role::Ingest);
    vec![
        with("no key", "", missing),
        with("a blank key", "x-api-key: \t \r\n", missing),
        with("a wrong key", "x-api-key: wrong\r\n", invalid),
        with("a key in quotes", "x-api-key: \"KEY\"\r\n", invalid),
        with(
            "a key in capitals",
            "x-api-key: DEMO-INGEST-KEY\r\n",
            invalid,
        ),
        with("a key and a letter", "x-api-key: KEYx\r\n", invalid),
        with("half a key", "x-api-key: demo-ingest\r\n", invalid),
        with(
            "a key with white space around it",
            "x-api-key: \t KEY \t\r\n",
            Stored(1),
        ),
        with("SQL as a key", "x-api-key: ' OR 1=1 --\r\n", invalid),
        with(
            "a key that is not ASCII",
            "x-api-key: clé\r\n".as_bytes(),
            invalid,
        ),
        with(
            "a key that is not UTF-8",
            b"x-api-key: \xff\xfe\r\n",
            invalid,
        ),
        with(
            "a key of 10 KB",
            format!("x-api-key: {}\r\n", "k".repeat(10_000)),
            invalid,
        ),
        with(
            "a wrong key before a good one",
            "x-api-key: wrong\r\nx-api-key: KEY\r\n",
            Stored(1),
        ),
        with(
            "a wrong key in another header",
            "authorization: Bearer wrong\r\nx-api-key: KEY\r\n",
            Stored(1),
        ),
        with(
            "a key without its scheme",
            "authorization: KEY\r\n",
            missing,
        ),
        with(
            "a key under another scheme",
            "authorization: Digest KEY\r\n",
            missing,
        ),
        with(
            "Basic of what is not base64",
            "authorization: Basic ***\r\n",
            invalid,
        ),
        with(
            "Basic of what is not UTF-8",
            "authorization: Basic //79Og==\r\n",
            invalid,
        ),
        with(
            "Basic with the key as the password",
            "authorization: Basic eDpkZW1vLWluZ2VzdC1rZXk=\r\n",
            invalid,
        ),
        with(
            "Bearer twice",
            "authorization: Bearer Bearer KEY\r\n",
            invalid,
        ),
        with(
            "a key in a cookie",
            "cookie: key=KEY; x-api-key=KEY\r\n",
            missing,
        ),
        with("a key in the wrong header", "api-key: KEY\r\n", missing),
        asked("a key by another name", "?api_key=KEY", "", missing),
        asked("a key that ends in a NUL", "?key=KEY%00", "", invalid),
        asked("a key with a line break", "?key=KEY%0d%0a", "", Stored(1)),
        asked(
            "two keys in the query",
            "?key=KEY&key=KEY",
            "",
            Problem(400, "invalid_query"),
        ),
        with(
            "another tenant",
            format!("x-api-key: KEY\r\nx-org-id: {OTHER}\r\n"),
            Problem(403, "tenant_mismatch"),
        ),
        with(
            "a tenant that there is not",
            "x-api-key: KEY\r\nx-org-id: nowhere\r\n",
            Problem(403, "tenant_mismatch"),
        ),
        with(
            "a tenant that is not UTF-8",
            b"x-api-key: KEY\r\nx-org-id: \xff\r\n",
            Problem(403, "tenant_mismatch"),
        ),
        with(
            "two tenants",
            format!("x-api-key: KEY\r\nx-org-id: demo\r\nx-org-id: {OTHER}\r\n"),
            Problem(403, "tenant_mismatch"),
        ),
        with(
            "two keys of two tenants",
            format!("x-api-key: KEY\r\nx-api-key: {other}\r\nx-org-id: {OTHER}\r\n"),
            Problem(403, "tenant_mismatch"),
        ),
        with(
            "a key of a suspended tenant",
            format!("x-api-key: {asleep}\r\n"),
            Problem(403, "tenant_not_active"),
        ),
        with(
            "a page of another site",
            "x-api-key: KEY\r\norigin: https://evil.example\r\n",
            Problem(403, "origin_not_allowed"),
        ),
        with(
            "a page without an origin",
            "x-api-key: KEY\r\norigin: null\r\n",
            Problem(403, "origin_not_allowed"),
        ),
        with(
            "two origins",
            "x-api-key: KEY\r\norigin: https://a.example\r\norigin: https://b.example\r\n",
            Problem(403, "origin_not_allowed"),
        ),
        with(
            "a page that says it is this service",
            "x-api-key: KEY\r\norigin: http://test\r\n",
            Problem(403, "origin_not_allowed"),
        ),
    ]
}

fn queries() -> Vec<Row> {
    let query = |what: &str, query: &str, answer| asked(what, query, "x-api-key: KEY\r\n", answer);
    let invalid = Problem(400, "invalid_query");
    let ack = Problem(400, "invalid_ack");
    let long = format!("?{}", "a".repeat(20_000));
    vec![
        query("an unknown parameter", "?akc=durable", invalid),
        query("a parameter in capitals", "?ACK=committed", invalid),
        query("a parameter twice", "?ack=committed&ack=committed", invalid),
        query(
            "a parameter twice, once encoded",
            "?ack=committed&%61ck=durable",
            invalid,
        ),
        query("an encoded name", "?%61ck=committed", Stored(1)),
        query("an unknown level", "?ack=none", ack),
        query("a level and a NUL", "?ack=committed%00", ack),
        query("a level without a value", "?ack", ack),
        query(
            "a format of the other endpoint",
            "?format=eval_v1",
            Problem(400, "invalid_format"),
        ),
        query(
            "an unknown format",
            "?format=../../etc/passwd",
            Problem(400, "invalid_format"),
        ),
        query("a switch that is neither", "?partial=maybe", invalid),
        query("a name that is not UTF-8", "?%ff=1", invalid),
        query("an escape that is none", "?%zz=1", invalid),
        query("empty parameters", "?&&&", Stored(1)),
        query(
            "semicolons between parameters",
            "?ack=committed;strict=true",
            ack,
        ),
        query("a query of 20 KB", &long, invalid),
    ]
}
