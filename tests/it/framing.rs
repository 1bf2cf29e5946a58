//! Promise: events arrive in each framing and each compression, and a body that lies about its
//! size uses no more memory than an honest one.

use std::io::Write as _;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::harness::{Database, Process, Service, Settings, click};

const PATH: &str = "/v1/interactions";

/// Content-Encoding, encoder, and the name in messages.
type Encoding = (&'static str, fn(&[u8]) -> Vec<u8>, &'static str);

const ENCODINGS: [Encoding; 9] = [
    ("identity", <[u8]>::to_vec, "identity"),
    ("gzip", gzip, "gzip"),
    ("GZIP", gzip, "gzip in capitals"),
    ("x-gzip", gzip_members, "gzip of several members"),
    ("deflate", zlib, "deflate with zlib's header"),
    ("deflate", deflate, "deflate without"),
    ("zstd", zstd, "zstd"),
    ("zstd", zstd_frames, "zstd of several frames"),
    ("br", brotli, "brotli"),
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip_members(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(bytes.len() / 3 + 1).flat_map(gzip).collect()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn zstd_frames(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(bytes.len() / 3 + 1).flat_map(zstd).collect()
}

/// A brotli stream of uncompressed meta-blocks (RFC 7932, 9.2): the part of the format that takes
/// a few lines to write. `BROTLI_BOMB` comes from a real compressor.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, chunk) in bytes.chunks(1 << 16).enumerate() {
        // ISLAST 0, MNIBBLES 00, MLEN-1, ISUNCOMPRESSED 1. In front of the first one stands
        // WBITS, a single 0 bit.
        let header = u32::try_from(chunk.len() - 1).unwrap() << 3 | 1 << 19;
        let header = if n == 0 { header << 1 } else { header };
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(chunk);
    }
    // ISLAST, ISLASTEMPTY.
    out.push(0b11);
    out
}

/// 64 MiB of spaces, from the reference encoder.
const BROTLI_BOMB: &str = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffcbffff3ffc1200715800a07bff07";

/// A body in each framing: name, Content-Type, text, and number of events.
fn bodies(name: &str) -> Vec<(&'static str, &'static str, String, u64)> {
    let (a, b) = (click(&format!("{name} a")), click(&format!("{name} b")));
    let c = click(&format!("{name} c"));
    let pretty = |value| serde_json::to_string_pretty(value).unwrap();
    let json = "application/json";
    vec![
        ("an object", json, format!(" {a}\n"), 1),
        ("an array", json, json!([a, b]).to_string(), 2),
        (
            "an envelope",
            json,
            json!({"batch": 7, "events": [a, b], "sent_at": "2026-03-10T08:00:00Z"}).to_string(),
            2,
        ),
        (
            "lines",
            "application/x-ndjson",
            format!("{a}\n{b}\r\n\n{c}"),
            3,
        ),
        (
            "lines by another name",
            "application/jsonl",
            format!("{a}\n{b}\n"),
            2,
        ),
        (
            "a beacon with an object",
            "text/plain;charset=UTF-8",
            a.to_string(),
            1,
        ),
        (
            "a beacon with an array",
            "text/plain",
            pretty(&json!([a, b])),
            2,
        ),
        (
            "a beacon with an envelope",
            "text/plain",
            pretty(&json!({"events": [a, b]})),
            2,
        ),
        ("a beacon with lines", "text/plain", format!("{a}\n{b}"), 2),
    ]
}

#[tokio::test]
async fn every_framing_works_in_every_compression() {
    let service = Service::start().await;
    let mut expected = 0;
    for (encoding, encode, how) in ENCODINGS {
        // Each combination posts new events.
        for (n, (framing, kind, _, _)) in bodies("").into_iter().enumerate() {
            let (_, _, body, events) = bodies(&format!("{how} {framing}")).remove(n);
            let client = service
                .client()
                .header("content-type", kind)
                .header("content-encoding", encoding);
            let reply = client.post_bytes(PATH, encode(body.as_bytes())).await;
            assert_eq!(
                reply.settled(),
                (events, 0, 0, 0),
                "{how}, {framing}: {}",
                reply.text
            );
            expected += i64::try_from(events).unwrap();
        }
    }
    assert_eq!(service.database.count("interaction_events").await, expected);
}

#[tokio::test]
async fn a_compressed_body_cut_at_any_byte_is_400_and_stores_nothing() {
    let service = Service::start().await;
    let body = json!([click("a"), click("b")]).to_string();
    for (encoding, encode, how) in ENCODINGS {
        // A cut between two members or frames leaves a valid body.
        if matches!(how, "identity" | "gzip in capitals") || how.contains("several") {
            continue;
        }
        let whole = encode(body.as_bytes());
        let client = service.client().header("content-encoding", encoding);
        for cut in 1..whole.len() {
            let reply = client.post_bytes(PATH, &whole[..cut]).await;
            assert_eq!(
                reply.problem(),
                (400, "invalid_compression"),
                "{how} cut at {cut} of {}: {}",
                whole.len(),
                reply.text
            );
        }
        let reply = client.post_bytes(PATH, whole).await;
        assert_eq!(reply.status, 200, "{how}: {}", reply.text);
    }
    assert_eq!(service.database.count("interaction_events").await, 2);
}

#[tokio::test]
async fn damage_that_a_checksum_shows_is_400() {
    let service = Service::start().await;
    let body = json!([click("a"), click("b")]).to_string();
    let mut damaged = gzip(body.as_bytes());
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    let mut short = zlib(body.as_bytes());
    let at = short.len() - 1;
    short[at] ^= 1;
    for (encoding, bytes) in [("gzip", damaged), ("deflate", short)] {
        let client = service.client().header("content-encoding", encoding);
        let reply = client.post_bytes(PATH, bytes).await;
        assert_eq!(reply.problem(), (400, "invalid_compression"), "{encoding}");
    }
    assert_eq!(service.database.count("interaction_events").await, 0);
}

/// Small bodies that inflate to 10 MiB or more.
static BOMBS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let blank = vec![b' '; 1 << 20];
    let piece = gzip(&blank);
    vec![
        ("gzip", piece.repeat(64)),
        ("deflate", zlib(&blank.repeat(10))),
        ("deflate", deflate(&blank.repeat(10))),
        ("zstd", zstd(&blank.repeat(64))),
        ("br", hex::decode(BROTLI_BOMB).unwrap()),
    ]
});

#[tokio::test]
async fn a_small_body_that_inflates_to_a_large_one_is_413() {
    let service = Service::with(|s| s.with("--body-bytes-max", "1MiB")).await;
    for (encoding, bomb) in BOMBS.iter() {
        assert!(bomb.len() < 1 << 20);
        let client = service.client().header("content-encoding", encoding);
        let reply = client.post_bytes(PATH, bomb.as_slice()).await;
        assert_eq!(reply.problem(), (413, "body_too_large"), "{encoding}");
        // Its memory is released.
        service.memory_is_free().await;
    }
}

#[tokio::test]
async fn a_zstd_frame_that_wants_a_large_window_is_400() {
    let service = Service::start().await;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder
        .write_all(click("a").to_string().as_bytes())
        .unwrap();
    let body = encoder.finish().unwrap();
    let client = service.client().header("content-encoding", "zstd");
    let reply = client.post_bytes(PATH, body).await;
    assert_eq!(reply.problem(), (400, "invalid_compression"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bombs_from_many_clients_at_once_take_no_memory_that_is_not_lent() {
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database).with("--queue-bytes-max", "24MiB");
    let (mut process, client) = Process::serve(&settings);
    assert_eq!(client.post(PATH, &click("a")).await.status, 200);
    let before = peak_bytes(process.pid());
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        for (encoding, bomb) in BOMBS.iter() {
            let client = client.header("content-encoding", encoding);
            posts.spawn(async move { client.post_bytes(PATH, bomb.as_slice()).await });
        }
    }
    for reply in posts.join_all().await {
        // 413 once it is inflated, or 503 because the memory limit is reached.
        assert!(matches!(reply.status, 413 | 503), "{}", reply.text);
    }
    let grown = peak_bytes(process.pid()) - before;
    assert!(grown < 128 << 20, "grew by {} MiB", grown >> 20);
    assert_eq!(client.post(PATH, &click("b")).await.status, 200);
    assert!(process.stop().success());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn members_that_nothing_reads_take_no_memory_in_any_shape() {
    let database = Database::with_tenants().await;
    let (mut process, client) = Process::serve(&Settings::new(&database));
    assert_eq!(client.post(PATH, &click("a")).await.status, 200);
    let before = peak_bytes(process.pid());
    // 3.5 MiB as gzip of 5 kB.
    let many = r#""":1,"#.repeat(700_000);
    let track = r#""type":"track","event":"Product Viewed","messageId":"m""#;
    for (path, body, status) in [
        (PATH, format!("{{{many}\"a\":1}}"), 422),
        ("/v1/track", format!("{{{many}{track}}}"), 202),
        (
            "/v1/batch",
            format!("{{\"batch\":[{{{track},\"properties\":{{{many}\"product_id\":\"a\"}}}}]}}"),
            202,
        ),
        (
            "/v1/batch",
            format!(
                "{{\"batch\":[{{{track},\"properties\":{{\"products\":[{{{many}\"sku\":\"a\"}}]}}}}]}}"
            ),
            202,
        ),
    ] {
        let client = client.header("content-encoding", "gzip");
        let reply = client.post_bytes(path, gzip(body.as_bytes())).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }
    let grown = peak_bytes(process.pid()) - before;
    assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
    assert!(process.stop().success());
}

/// The peak memory of a process.
#[cfg(target_os = "linux")]
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn a_body_that_there_is_never_memory_for_is_413_and_not_503_for_ever() {
    let service = Service::with(|s| {
        s.with("--queue-bytes-max", "1MiB")
            .with("--body-bytes-max", "1MiB")
    })
    .await;
    let large = json!([{"pad": "x".repeat(1_020_000)}]).to_string();
    let gzipped = gzip(large.as_bytes());
    for (encoding, body) in [("identity", large.into_bytes()), ("gzip", gzipped)] {
        let client = service.client().header("content-encoding", encoding);
        let reply = client.post_bytes(PATH, body).await;
        assert_eq!(reply.problem(), (413, "body_too_large"), "{encoding}");
    }
    assert_eq!(
        service.interactions(&click("a")).await.settled(),
        (1, 0, 0, 0)
    );
}
