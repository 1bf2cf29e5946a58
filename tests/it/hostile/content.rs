//! Bodies: compressions that lie, and JSON that is none.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::Answer::{Problem, Rejected, Stored};
use super::Row;
use crate::harness::click;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = compressions();
    rows.extend(documents());
    rows.extend(values());
    rows
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// "{}" as brotli: an uncompressed meta-block, and the last one.
const BROTLI: &[u8] = &[0x10, 0x00, 0x10, b'{', b'}', 0x03];

fn compressions() -> Vec<Row> {
    let damaged = Problem(400, "invalid_compression");
    let unknown = Problem(415, "unsupported_encoding");
    let large = Problem(413, "body_too_large");
    let body = |what: &str| click(what).to_string().into_bytes();
    let post = |encoding: &str, what: &str, bytes: Vec<u8>, answer| {
        let lines = format!("content-encoding: {encoding}\r\n");
        Row::body(&format!("{encoding}: {what}"), &lines, bytes, answer)
    };
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    let more = |bytes: Vec<u8>| [bytes, b"more".to_vec()].concat();
    let blank = vec![b' '; 2 << 20];
    let mut wrong_sum = gzip(&body("sum"));
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let mut window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(27).unwrap();
    window.write_all(&body("window")).unwrap();
    // One segment of no bytes, for the dictionary 7.
    let dictionary = b"\x28\xb5\x2f\xfd\x21\x07\x00\x01\x00\x00".to_vec();
    // A frame to skip, of three bytes.
    let skipped = [
        b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(),
        zstd(&body("skip")),
    ]
    .concat();
    vec![
        post("gzip", "cut off", cut(gzip(&body("a"))), damaged),
        post("gzip", "more behind it", more(gzip(&body("b"))), damaged),
        post("gzip", "another checksum", wrong_sum, damaged),
        post(
            "gzip",
            "its first bytes alone",
            b"\x1f\x8b".to_vec(),
            damaged,
        ),
        post(
            "gzip",
            "a name without an end",
            b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name".to_vec(),
            damaged,
        ),
        post("gzip", "plain JSON", body("c"), damaged),
        post("gzip", "a bomb", gzip(&blank), large),
        post("gzip", "compressed twice", gzip(&gzip(&body("d"))), damaged).says("compress it once"),
        post(
            "gzip",
            "nothing compressed",
            gzip(b""),
            Problem(400, "no_events"),
        ),
        post(
            "identity",
            "gzip without its label",
            gzip(&body("e")),
            damaged,
        )
        .says("Content-Encoding: gzip"),
        post(
            "identity",
            "zstd without its label",
            zstd(&body("f")),
            damaged,
        )
        .says("Content-Encoding: zstd"),
        post("deflate", "cut off", cut(zlib(&body("g"))), damaged),
        post("deflate", "more behind it", more(zlib(&body("h"))), damaged),
        post(
            "deflate",
            "gzip under another name",
            gzip(&body("i")),
            damaged,
        ),
        post("deflate", "a bomb", zlib(&blank), large),
        post("zstd", "cut off", cut(zstd(&body("j"))), damaged),
        post("zstd", "more behind it", more(zstd(&body("k"))), damaged),
        post(
            "zstd",
            "a window of 128 MiB",
            window.finish().unwrap(),
            damaged,
        ),
        post("zstd", "a dictionary", dictionary, damaged).says("with a dictionary"),
        post("zstd", "a frame to skip", skipped, Stored(1)),
        post("zstd", "a bomb", zstd(&blank), large),
        post(
            "br",
            "an event without a field",
            BROTLI.to_vec(),
            Rejected("missing_field"),
        ),
        post("br", "cut off", cut(BROTLI.to_vec()), damaged),
        post("br", "more behind it", more(BROTLI.to_vec()), damaged),
        post(
            "br",
            "a window of 1 GiB",
            b"\x11\x1e\0\0\0".to_vec(),
            damaged,
        ),
        post("gzip, gzip", "a chain", gzip(&gzip(&body("l"))), unknown),
        post("gzip;q=1", "a weight", gzip(&body("m")), unknown),
        post("compress", "an old name", body("n"), unknown),
        post(
            "gzip\r\ncontent-encoding: br",
            "two headers",
            gzip(&body("o")),
            unknown,
        ),
    ]
}

/// What is no JSON document, or none of events.
fn documents() -> Vec<Row> {
    let malformed = Problem(400, "malformed_body");
    let none = Problem(400, "no_events");
    let charset = Problem(415, "unsupported_charset");
    let post = |what: &str, bytes: &[u8], answer| {
        Row::body(what, "content-type: application/json\r\n", bytes, answer)
    };
    let event = click("document").to_string();
    let with = |more: &str| format!("{},{more}}}", &event[..event.len() - 1]).into_bytes();
    let utf16: Vec<u8> = event.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut rows = vec![
        post("no body", b"", none),
        post("white space", b" \r\n\t ", none),
        post("a mark and no body", b"\xef\xbb\xbf", none),
        post("no events in a list", b"[]", none),
        post("no events in an envelope", br#"{"events":[]}"#, none),
        post(
            "two lists in an envelope",
            br#"{"events":[],"events":[]}"#,
            Problem(400, "duplicate_field"),
        ),
        post(
            "two documents",
            format!("{event}{event}").as_bytes(),
            malformed,
        ),
        post(
            "a document that does not end",
            &event.as_bytes()[..20],
            malformed,
        ),
        post(
            "two thousand brackets",
            "[".repeat(2000).as_bytes(),
            malformed,
        ),
        post(
            "a million brackets",
            "[".repeat(1_000_000).as_bytes(),
            malformed,
        ),
        post("UTF-16", &utf16, charset),
        post("UTF-16 with its mark", b"\xff\xfe{\0}\0", charset),
        post(
            "bytes that are not UTF-8",
            &with("\"a\":\"b\"").replace_ascii(b'b', 0xff),
            malformed,
        ),
        post(
            "a NUL",
            &with("\"a\":\"b\"").replace_ascii(b'b', 0),
            malformed,
        ),
        post("a NUL in two bytes", b"[\"\xc0\x80\"]", malformed),
        post(
            "a surrogate as three bytes",
            b"[\"\xed\xa0\x80\"]",
            malformed,
        ),
        post("a mark inside", "[\u{feff}{}]".as_bytes(), malformed),
        post("a form", b"a=b&c=d", malformed),
        post("HTML", b"<html></html>", malformed),
    ];
    // Each stands for a value where JSON has none such.
    for value in [
        "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "1e", "0x10", "1_000", "-", "'a'",
        "\"a\nb\"", "\"\\x41\"", "\"\\u12\"", "True", "nul", "undefined", "[1,]", "{\"a\":1,}",
        "{a:1}", "/*1*/1", "1//", "\u{a0}1",
    ] {
        let body = with(&format!("\"meta\":{{\"a\":{value}}}"));
        rows.push(post(&format!("the value {value:?}"), &body, malformed));
    }
    rows
}

/// JSON that the service does not take, or does.
fn values() -> Vec<Row> {
    let post = |what: &str, more: &str, answer| {
        let event = click(what).to_string();
        let body = format!("{},{more}}}", &event[..event.len() - 1]);
        Row::body(what, "content-type: application/json\r\n", body, answer)
    };
    let deep = |depth: usize| {
        format!(
            "\"meta\":{{\"a\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let name = "n".repeat(64 << 10);
    let long = format!("\"meta\":{{\"a\":\"{}\"}}", "x".repeat(300 << 10));
    let fields: Vec<_> = (0..1100).map(|n| format!("\"f{n}\":1")).collect();
    let digits = format!("\"meta\":{{\"a\":{}}}", "9".repeat(500));
    vec![
        post("62 levels", &deep(62), Stored(1)),
        post("63 levels", &deep(63), Rejected("too_deep")),
        post(
            "a field twice",
            "\"item_id\":\"b\"",
            Rejected("duplicate_field"),
        ),
        post(
            "a field twice, once escaped",
            "\"item\\u005fid\":\"b\"",
            Rejected("duplicate_field"),
        ),
        post(
            "two names for one thing",
            "\"tenant\":\"demo\",\"tenant_id\":\"other\"",
            Rejected("conflicting_fields"),
        ),
        post(
            "another tenant in an event",
            "\"tenant_id\":\"other\"",
            Rejected("tenant_mismatch"),
        ),
        post(
            "an escaped NUL",
            "\"surface\":\"a\\u0000\"",
            Rejected("invalid_unicode"),
        ),
        post(
            "an escaped NUL in a name",
            "\"a\\u0000\":1",
            Rejected("invalid_unicode"),
        ),
        post(
            "half a surrogate pair",
            "\"surface\":\"\\ud800\"",
            Rejected("invalid_unicode"),
        ),
        post(
            "a pair the wrong way round",
            "\"surface\":\"\\udc00\\ud800\"",
            Rejected("invalid_unicode"),
        ),
        post(
            "a whole pair",
            "\"meta\":{\"a\":\"\\ud83d\\ude00\"}",
            Stored(1),
        ),
        post(
            "1e999",
            "\"meta\":{\"a\":1e999}",
            Rejected("number_out_of_range"),
        ),
        post("500 digits", &digits, Rejected("number_out_of_range")),
        post(
            "a value of 1e300",
            "\"value\":1e300",
            Rejected("number_out_of_range"),
        ),
        post("minus zero", "\"value\":-0", Stored(1)),
        post(
            "a number of 2^63",
            "\"position\":9223372036854775808",
            Rejected("number_out_of_range"),
        ),
        post("a number as a name", "\"item_id2\":1e3", Stored(1)),
        post("a name of 64 KiB", &format!("\"{name}\":1"), Stored(1)),
        post("an event of 300 KiB", &long, Rejected("event_too_large")),
        post(
            "1,100 fields",
            &fields.join(","),
            Rejected("too_many_fields"),
        ),
        post(
            "the prototype of an object",
            "\"__proto__\":{\"a\":1}",
            Stored(1),
        ),
        post(
            "SQL",
            "\"meta\":{\"a\":\"'); DROP TABLE interaction_events; --\"}",
            Stored(1),
        ),
        post("COPY's end", "\"meta\":{\"a\":\"\\\\.\\n\"}", Stored(1)),
        post(
            "a direction mark",
            "\"meta\":{\"a\":\"\\u202e\"}",
            Stored(1),
        ),
    ]
}

/// Bytes with each one of a kind replaced.
trait Replaced {
    fn replace_ascii(self, old: u8, new: u8) -> Vec<u8>;
}

impl Replaced for Vec<u8> {
    /// Replaces the last `old`.
    fn replace_ascii(mut self, old: u8, new: u8) -> Vec<u8> {
        let at = self.iter().rposition(|byte| *byte == old).unwrap();
        self[at] = new;
        self
    }
}
