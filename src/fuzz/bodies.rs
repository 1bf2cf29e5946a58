//! Bodies: framings and compressions.

use std::cell::Cell;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::input::{choice, seeds};
use crate::admission::admit::Admission;
use crate::admission::memory::MemoryLimit;
use crate::admission::record::Record;
use crate::drain_rate::DrainRate;
use crate::event::body::framing::Framing;
use crate::event::body::{Body, BodyError, Limits, Memory};
use crate::event::json::walk::members;
use crate::event::table::Table;
use crate::http::ingest::body::inflate::{Encoding, Inflater};
use crate::http::problem::Problem;
use crate::log::spool::disk::faulty::FaultyDisk;
use crate::log::spool::recover::open::open_on;
use crate::log::spool::settings::Settings;

const FRAMINGS: [Framing; 4] = [
    Framing::Json,
    Framing::Lines,
    Framing::Either,
    Framing::Form,
];

const LIMITS: Limits = Limits {
    events_max: 50,
    event_bytes_max: 1000,
};

const TEXTS: [&str; 8] = [
    r#"[{"event_type":"click","item_id":"a"},{"event_type":"view","item_id":"b"}]"#,
    r#"{"sent_at":"2026-05-24T10:00:00Z","events":[{"a":1}],"batch":7}"#,
    "{\"a\":1}\n{\"b\":[2,{}]}\r\n\n7\n{\"c\"",
    "\u{feff}{\"a\":\"\\u00e9\"}",
    "{\n \"a\": {\n  \"b\": []\n }\n}",
    "[[],\"x\",null,{\"a\\n\":\"\\ud800\"}]",
    "a=b&c=d",
    "{\0}\0",
];

pub(super) fn framing_seeds() -> Vec<Vec<u8>> {
    seeds(&[0, 1, 2, 3], &TEXTS)
}

/// Counts what is asked for.
#[derive(Debug, Default)]
struct Taken(Cell<usize>);

impl Memory for Taken {
    fn take(&self, bytes: usize) -> bool {
        self.0.set(self.0.get() + bytes);
        true
    }
}

/// A body is split within its limits, into parts of itself, in memory linear in its bytes.
pub(super) fn framing(data: &[u8]) {
    let (first, body) = choice(data);
    split(body, FRAMINGS[usize::from(first) % FRAMINGS.len()]);
}

fn split(bytes: &[u8], framing: Framing) {
    let taken = Taken::default();
    let body = match Body::split_within(bytes, framing, &LIMITS, &taken) {
        Ok(body) => body,
        Err(BodyError::NoMemory) => panic!("memory was not refused"),
        Err(error) => {
            assert!(error.to_string().len() < 300);
            return;
        }
    };
    assert!((1..=LIMITS.events_max).contains(&body.len()));
    assert!(body.text_bytes() <= bytes.len());
    let most = 80 * bytes.len() + 600 * body.len() + (16 << 10);
    assert!(
        taken.0.get() <= most,
        "{} bytes for {}",
        taken.0.get(),
        bytes.len()
    );
    let mut events = 0;
    for event in body.events() {
        events += 1;
        let Ok(event) = event else { continue };
        assert!(event.text.len() <= LIMITS.event_bytes_max);
        let again = members(event.text).expect("an event is an object");
        let same = again.iter().zip(event.fields).all(|(one, other)| {
            (&one.key, one.raw, one.escaped) == (&other.key, other.raw, other.escaped)
        });
        assert!(
            same && again.len() == event.fields.len(),
            "{again:?} and {:?}",
            event.fields
        );
    }
    assert_eq!(events, body.len());
}

/// Bytes of an inflated body.
const INFLATED_MAX: usize = 16 << 10;

const ENCODINGS: [&str; 4] = ["gzip", "deflate", "zstd", "br"];

/// Admission with a memory limit and a log that nothing is written to.
static ADMISSION: LazyLock<Admission> = LazyLock::new(|| {
    let (entries, receiver) = flume::bounded::<Record>(1);
    let disk = Arc::new(FaultyDisk::default());
    let opened =
        open_on(disk, None, Settings::default(), receiver).expect("an empty disk is sound");
    Admission::new(
        MemoryLimit::new(1 << 20),
        entries,
        Arc::new(opened.spool),
        1 << 20,
        Arc::new(DrainRate::new(Instant::now())),
        [1; Table::ALL.len()],
        Arc::new(AtomicBool::new(false)),
    )
});

pub(super) fn compression_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let large = [vec![b' '; INFLATED_MAX + 1], b"x".to_vec()].concat();
    for text in [TEXTS[0].as_bytes(), &[], &large[..]] {
        let gzip = gzip(text);
        for (place, bytes) in [
            (0, gzip.clone()),
            (0, [gzip.clone(), vec![0; 3], gzip].concat()),
            (1, zlib(text)),
            (1, deflate(text)),
            (2, zstd::encode_all(text, 1).expect("memory takes all")),
        ] {
            all.push([&[place, 7], &bytes[..]].concat());
        }
    }
    // A frame to skip, a frame with a dictionary, a window of 128 MiB.
    all.push(b"\x02\x01\x50\x2a\x4d\x18\x02\0\0\0ab\x28\xb5\x2f\xfd\x20\x02\x11\0\0{}".to_vec());
    all.push(b"\x02\x01\x28\xb5\x2f\xfd\x21\x07\0\x01\0\0".to_vec());
    all.push(b"\x02\x01\x28\xb5\x2f\xfd\0\x88\x11\0\0{}".to_vec());
    // A stored block, and 64 MiB of spaces from the reference encoder.
    all.push(b"\x03\x01\x10\0\x10{}\x03".to_vec());
    all.push(
        b"\x03\x05\xcb\xff\xff\x3f\xf8\x25\x40\xe2\xb1\x40\x20\xf7\xfe\x8f\xff\xff\x7f".to_vec(),
    );
    all
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("memory takes all")
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("memory takes all")
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("memory takes all")
}

/// Inflates a body that comes in pieces of `piece` bytes.
fn inflated(name: &'static str, body: &[u8], piece: usize) -> Result<Vec<u8>, StatusCode> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    let full = |_| Problem::unavailable("overloaded", "", Duration::ZERO);
    let all = || {
        let encoding = Encoding::of(&headers)?;
        let mut inflater = Inflater::new(encoding, INFLATED_MAX, &ADMISSION)?;
        for piece in body.chunks(piece.max(1)) {
            inflater.write(piece, &full)?;
        }
        inflater.finish(&full)
    };
    let received = all().map_err(|problem: Problem| problem.render("/", "", true).status())?;
    assert!(received.bytes.len() <= INFLATED_MAX);
    assert!(ADMISSION.bytes().0 >= received.bytes.len());
    Ok(received.bytes.to_vec())
}

/// A body inflates to the same however it is cut into pieces, within its limit, and gives its memory
/// back.
pub(super) fn compression(data: &[u8]) {
    let (name, piece, body) = compressed(data);
    let whole = inflated(name, body, body.len());
    let pieces = inflated(name, body, piece);
    // Of two errors, another may be met first. Of a frame that is there as a whole libzstd checks
    // the size that it declares; of one in pieces that ends in an empty block, it does not.
    if name != "zstd" || whole.is_ok() || pieces.is_err() {
        assert_eq!(
            whole.as_ref().ok(),
            pieces.as_ref().ok(),
            "{name} in pieces of {piece}"
        );
    }
    assert_eq!(ADMISSION.bytes().0, 0);
    if let Err(status) = whole {
        assert!(
            matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE
            ),
            "{status}"
        );
    }
}

fn compressed(data: &[u8]) -> (&'static str, usize, &[u8]) {
    let (first, rest) = choice(data);
    let (piece, body) = choice(rest);
    (
        ENCODINGS[usize::from(first) % ENCODINGS.len()],
        usize::from(piece) + 1,
        body,
    )
}

pub(super) fn both_seeds() -> Vec<Vec<u8>> {
    seeds(&[0, 1, 2, 3], &compression_seeds())
}

/// What was inflated is split.
pub(super) fn both(data: &[u8]) {
    let (first, rest) = choice(data);
    let (name, piece, body) = compressed(rest);
    if let Ok(body) = inflated(name, body, piece) {
        split(&body, FRAMINGS[usize::from(first) % FRAMINGS.len()]);
    }
}
