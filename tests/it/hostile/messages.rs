//! Requests that two programs could read differently, and such that are none.

use super::Answer::{Closed, Problem, Stored};
use super::{PATH, Row};
use crate::harness::click;

/// The parser's answer.
const NONE: super::Answer = Problem(400, "");
const TOO_LARGE: super::Answer = Problem(431, "");
const HOST: super::Answer = Problem(400, "invalid_host");
const CUT: super::Answer = Problem(400, "body_incomplete");
const MISSING: super::Answer = Problem(404, "not_found");

/// A second request, which must never be answered.
const SECOND: &str = "POST /v1/interactions HTTP/1.1\r\nhost: test\r\nx-api-key: KEY\r\ncontent-length: LEN\r\n\r\nEVENT";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = lengths();
    rows.extend(chunks());
    rows.extend(heads());
    rows.extend(lines());
    rows
}

/// A post whose length is said by these lines.
fn sized(what: &str, lines: &str, body: &str, answer: super::Answer) -> Row {
    let text = format!("POST {PATH} HTTP/1.1\r\nhost: test\r\nx-api-key: KEY\r\n{lines}\r\n{body}");
    Row::raw(what, text, answer)
}

fn lengths() -> Vec<Row> {
    let behind = format!("0\r\n\r\n{SECOND}");
    let cl = |value: &str| format!("content-length: {value}\r\n");
    let te = |value: &str| format!("transfer-encoding: {value}\r\n");
    let both = |a: &str, b: &str| format!("{a}{b}");
    let empty = Problem(400, "no_events");
    let coding = Problem(501, "unsupported_transfer_encoding");
    vec![
        sized(
            "a length and chunks",
            &both(&cl("6"), &te("chunked")),
            &behind,
            empty,
        ),
        sized(
            "chunks and a length",
            &both(&te("chunked"), &cl("400")),
            &behind,
            empty,
        ),
        sized("two lengths", &both(&cl("LEN"), &cl("5")), "EVENT", NONE),
        sized(
            "two lengths, the second longer",
            &both(&cl("0"), &cl("LEN")),
            SECOND,
            NONE,
        ),
        sized(
            "one length twice",
            &both(&cl("LEN"), &cl("LEN")),
            "EVENT",
            Stored(1),
        ),
        sized("a list of lengths", &cl("LEN, LEN"), "EVENT", NONE),
        sized("a length with a plus", &cl("+LEN"), "EVENT", NONE),
        sized("a negative length", &cl("-1"), "EVENT", NONE),
        sized("a hexadecimal length", &cl("0x10"), "EVENT", NONE),
        sized("a length with an exponent", &cl("1e2"), "EVENT", NONE),
        sized("a blank length", &cl(""), "EVENT", NONE),
        sized(
            "a length of 2^63",
            &cl("9223372036854775807"),
            "EVENT",
            Problem(413, "body_too_large"),
        ),
        sized(
            "a length beyond 2^64",
            &cl("99999999999999999999"),
            "EVENT",
            NONE,
        ),
        sized("a length beyond the body", &cl("5000"), "EVENT", CUT),
        sized("no length", "", "", empty).says("neither Content-Length"),
        Row::raw(
            "no length in HTTP/1.0",
            format!("POST {PATH} HTTP/1.0\r\nx-api-key: KEY\r\n\r\nEVENT"),
            empty,
        )
        .says("neither Content-Length"),
        sized("identity as the coding", &te("identity"), &behind, NONE),
        sized(
            "a coding that begins like chunked",
            &te("chunkedx"),
            &behind,
            NONE,
        ),
        sized(
            "chunked before identity",
            &te("chunked, identity"),
            &behind,
            NONE,
        ),
        sized("gzip before chunked", &te("gzip, chunked"), &behind, coding),
        sized("chunked twice", &te("chunked, chunked"), &behind, coding),
        sized(
            "chunked in two headers",
            &both(&te("chunked"), &te("chunked")),
            &behind,
            coding,
        ),
        sized(
            "identity in a second header",
            &both(&te("chunked"), &te("identity")),
            &behind,
            NONE,
        ),
        sized(
            "a space before the colon",
            "transfer-encoding : chunked\r\n",
            &behind,
            NONE,
        ),
        sized(
            "a vertical tab before chunked",
            &te("\x0bchunked"),
            &behind,
            NONE,
        ),
        Row::raw(
            "chunks in HTTP/1.0",
            format!(
                "POST {PATH} HTTP/1.0\r\nx-api-key: KEY\r\ntransfer-encoding: chunked\r\n\r\n{behind}"
            ),
            NONE,
        ),
    ]
}

fn chunks() -> Vec<Row> {
    let post = |what: &str, body: String, answer| {
        sized(what, "transfer-encoding: chunked\r\n", &body, answer)
    };
    let broken = |what: &str, body: String| post(what, body, CUT).says("break the rules");
    let cut = |what: &str, body: String| post(what, body, CUT).says("broke off");
    let whole = |extension: &str, end: &str| {
        let event = click("chunk").to_string();
        format!("{:x}{extension}\r\n{event}\r\n{end}", event.len())
    };
    let end = "0\r\n\r\n";
    let long = "a".repeat(40_000);
    vec![
        broken("a chunk size of no digits", format!("zz\r\n{end}")),
        broken("a blank chunk size", format!("\r\n{end}")),
        broken("a negative chunk size", format!("-5\r\n{end}")),
        broken("a chunk size with 0x", format!("0x5\r\n12345\r\n{end}")),
        broken(
            "a chunk size beyond 2^64",
            format!("fffffffffffffffff\r\n{end}"),
        ),
        broken(
            "a chunk size before a bare LF",
            format!("5\n12345\r\n{end}"),
        ),
        broken(
            "a chunk shorter than its size",
            format!("9\r\n12345\r\n{end}"),
        ),
        broken(
            "a chunk longer than its size",
            format!("3\r\n12345\r\n{end}"),
        ),
        broken(
            "a chunk extension of 40 KB",
            whole(&format!(";{long}"), end),
        ),
        broken("a bare LF in a chunk extension", whole(";a\nb", end)),
        broken(
            "trailers of 40 KB",
            whole("", &format!("0\r\nx: {long}\r\n\r\n")),
        ),
        cut("a chunk of 2^63 bytes", "7fffffffffffffff\r\nx".to_owned()),
        cut("chunks without an end", whole("", "")),
        cut("trailers without an end", whole("", "0\r\nx: y\r\n")),
        post("a chunk extension", whole(";a=b", end), Stored(1)),
        // The same event again.
        post(
            "trailers",
            whole("", "0\r\ncontent-length: 5\r\nx-api-key: x\r\n\r\n"),
            Stored(0),
        ),
    ]
}

fn heads() -> Vec<Row> {
    let many = "x: y\r\n".repeat(101);
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    let host = |what: &str, lines: &str, answer| {
        let text = format!(
            "POST {PATH} HTTP/1.1\r\n{lines}x-api-key: KEY\r\ncontent-length: LEN\r\n\r\nEVENT"
        );
        Row::raw(what, text, answer)
    };
    vec![
        Row::lines("a folded line", "x: a\r\n  b: c\r\n", NONE),
        Row::lines("a folded length", "x: a\r\n content-length: 0\r\n", NONE),
        Row::lines("a bare LF between two lines", "x: a\ny: b\r\n", NONE),
        Row::lines("a bare CR in a value", "x: a\rb\r\n", NONE),
        Row::lines("a NUL in a value", "x: a\0b\r\n", NONE),
        Row::lines("a NUL in a name", "x\0y: a\r\n", NONE),
        Row::lines("a line without a colon", "nothing\r\n", NONE),
        Row::lines("a line without a name", ": a\r\n", NONE),
        Row::lines("a space in a name", "x y: a\r\n", NONE),
        Row::lines("a name that is not ASCII", "xé: a\r\n", NONE),
        Row::lines("a hundred headers and more", &many, TOO_LARGE),
        Row::lines("a header of 40 KiB", &long, TOO_LARGE),
        Row::lines(
            "an expectation that there is not",
            "expect: 200-ok\r\n",
            Stored(1),
        ),
        Row::lines(
            "an upgrade",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAAA\r\n",
            Stored(1),
        ),
        Row::lines(
            "a request id with a line break in escapes",
            "x-request-id: a%0d%0aset-cookie:b\r\n",
            Stored(1),
        ),
        host("no host", "", HOST),
        host("two hosts", "host: test\r\nhost: test\r\n", HOST),
        host("a list of hosts", "host: test, other\r\n", HOST),
        host("a host with a path", "host: test/v1\r\n", HOST),
        host("a host with a user", "host: demo@test\r\n", HOST),
        host("a host with an open bracket", "host: [::1\r\n", HOST),
        host("a host with a space", "host: te st\r\n", HOST),
        host(
            "a host with a letter in its port",
            "host: test:8o8o\r\n",
            HOST,
        ),
        host(
            "a host with a port beyond 65535",
            "host: test:65536\r\n",
            HOST,
        ),
        host("a space before the first header", " host: test\r\n", NONE),
        host("all lines end in bare LF", "host: test\n", NONE),
    ]
}

fn lines() -> Vec<Row> {
    let wrong = Problem(405, "method_not_allowed");
    let long = "x".repeat(40_000);
    vec![
        Row::line("HTTP/0.9", &format!("POST {PATH}"), NONE),
        Row::line("HTTP/1.2", &format!("POST {PATH} HTTP/1.2"), NONE),
        Row::line("HTTP/2.0 in HTTP/1", &format!("POST {PATH} HTTP/2.0"), NONE),
        Row::line("HTTP/3.0", &format!("POST {PATH} HTTP/3.0"), NONE),
        Row::line(
            "the version in small letters",
            &format!("POST {PATH} http/1.1"),
            NONE,
        ),
        Row::line(
            "a version with more behind it",
            &format!("POST {PATH} HTTP/1.1 x"),
            NONE,
        ),
        Row::line(
            "the method in small letters",
            &format!("post {PATH} HTTP/1.1"),
            wrong,
        ),
        Row::line("no method", &format!(" {PATH} HTTP/1.1"), NONE),
        Row::line(
            "a method that is no token",
            &format!("PO(ST {PATH} HTTP/1.1"),
            NONE,
        ),
        Row::line("TRACE", &format!("TRACE {PATH} HTTP/1.1"), wrong),
        Row::line("CONNECT", "CONNECT test:80 HTTP/1.1", MISSING),
        Row::line("OPTIONS of everything", "OPTIONS * HTTP/1.1", MISSING),
        Row::line("GET with an event", &format!("GET {PATH} HTTP/1.1"), wrong),
        Row::line(
            "a URL of another host",
            &format!("POST http://other{PATH} HTTP/1.1"),
            Stored(1),
        ),
        Row::line(
            "a URL with a user",
            &format!("POST http://demo:x@test{PATH} HTTP/1.1"),
            Stored(1),
        ),
        Row::line(
            "a URL without a host",
            &format!("POST http://{PATH} HTTP/1.1"),
            NONE,
        ),
        Row::line(
            "a path of 40 KiB",
            &format!("POST /{long} HTTP/1.1"),
            TOO_LARGE,
        ),
        Row::line(
            "a space in the path",
            "POST /v1/inter actions HTTP/1.1",
            NONE,
        ),
        Row::line(
            "two spaces in the line",
            &format!("POST  {PATH} HTTP/1.1"),
            NONE,
        ),
        Row::line(
            "a NUL in the path",
            "POST /v1/interactions\0 HTTP/1.1",
            NONE,
        ),
        Row::line(
            "an encoded NUL",
            "POST /v1/interactions%00 HTTP/1.1",
            MISSING,
        ),
        Row::line("two dots", "POST /v1/../v1/interactions HTTP/1.1", MISSING),
        Row::line(
            "two dots, encoded",
            "POST /v1/%2e%2e/v1/interactions HTTP/1.1",
            MISSING,
        ),
        Row::line(
            "two dots above the root",
            "POST /../../etc/passwd HTTP/1.1",
            MISSING,
        ),
        Row::line("one dot", "POST /v1/./interactions HTTP/1.1", MISSING),
        Row::line(
            "an encoded slash",
            "POST /v1%2finteractions HTTP/1.1",
            MISSING,
        ),
        Row::line("a backslash", "POST /v1\\interactions HTTP/1.1", MISSING),
        Row::line(
            "a parameter of the path",
            "POST /v1/interactions;a=b HTTP/1.1",
            MISSING,
        ),
        Row::line(
            "letters encoded twice",
            "POST /v1/%2569nteractions HTTP/1.1",
            MISSING,
        ),
        Row::line("hidden metrics", "GET /%6detrics HTTP/1.1", MISSING),
        Row::line(
            "hidden metrics behind slashes",
            "GET //metrics HTTP/1.1",
            MISSING,
        ),
        Row::line(
            "below an endpoint",
            "POST /v1/interactions/1 HTTP/1.1",
            MISSING,
        ),
        Row::raw(
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
            NONE,
        ),
        Row::raw(
            "another protocol",
            "EHLO test\r\nMAIL FROM:<a@b>\r\n\r\n",
            NONE,
        ),
        Row::raw(
            "half a head",
            format!("POST {PATH} HTTP/1.1\r\nhost: test\r\n"),
            Closed,
        ),
        Row::raw("nothing", "", Closed),
    ]
}
