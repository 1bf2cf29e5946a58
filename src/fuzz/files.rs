//! What is read back from disk: the spool's segments and records, the openings, the copy of keys.

use std::hint::black_box;

use bytes::Bytes;
use uuid::Uuid;

use super::input::{choice, seeds};
use crate::event::row::rows::Rows;
use crate::event::row_json::row_to_json;
use crate::log::spool::format::{
    FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, Predecessor, SEGMENT_HEADER_BYTES,
    SEGMENT_HEADER_COPY_AT, STREAMS_MAX, SegmentHeader, first_sequence_in_name, segment_name,
    to_usize,
};
use crate::log::spool::recover::openings::History;
use crate::log::spool::recover::scan::segment::scan_segment;
use crate::tenants::cache_file::format;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::snapshot::Snapshot;

pub(super) fn row_seeds() -> Vec<Vec<u8>> {
    let mut row = vec![1, 1, 0, 14];
    for (length, byte) in [(16, 7), (8, 1), (16, 9), (8, 2)] {
        row.extend_from_slice(&[0, 0, 0, length]);
        row.extend(vec![byte; usize::from(length)]);
    }
    let key = row.clone();
    for _ in 0..10 {
        row.extend_from_slice(&[0xff; 4]);
    }
    vec![row, key, vec![1, 0], vec![2, 0]]
}

/// Rows from disk are rows, or are refused.
pub(super) fn rows(data: &[u8]) {
    let Ok(rows) = Rows::parse(Bytes::copy_from_slice(data)) else {
        return;
    };
    assert_eq!(&rows.framed()[..], data);
    let bytes: usize = rows.iter().map(<[u8]>::len).sum();
    assert_eq!(bytes + 2, data.len());
    for row in rows.iter() {
        drop(row_to_json(rows.table(), row));
    }
    let again = Rows::parse(rows.framed().clone()).map(|again| again.len());
    assert_eq!(again, Ok(rows.len()));
}

fn header() -> SegmentHeader {
    SegmentHeader {
        spool_id: Uuid::from_u128(7),
        number: 3,
        first_sequence: 41,
        predecessor: Some(Predecessor {
            number: 2,
            end: FRAMES_START,
            whole: true,
        }),
        counts: [5; STREAMS_MAX],
        recycled: true,
    }
}

/// The first bytes of a segment's file.
fn file_start(header: &[u8]) -> Vec<u8> {
    let mut file = vec![0; to_usize(FRAMES_START)];
    for at in [0, to_usize(SEGMENT_HEADER_COPY_AT)] {
        file[at..at + header.len()].copy_from_slice(header);
    }
    file
}

pub(super) fn header_seeds() -> Vec<Vec<u8>> {
    let first = SegmentHeader {
        predecessor: None,
        recycled: false,
        ..header()
    };
    let mut names = seeds(&[1], &["00000000000000ff.seg", "ff.seg", "x"]);
    names.extend(seeds(&[0], &[header().encode(), first.encode()]));
    names
}

/// A header with a corrected checksum is read as it was written, or is refused; a name is one
/// that the spool writes, or none.
pub(super) fn segment_header(data: &[u8]) {
    let (is_name, data) = choice(data);
    if is_name & 1 == 1 {
        let name = super::input::text(data);
        if let Some(first) = first_sequence_in_name(name) {
            assert_eq!(segment_name(first), name);
        }
        return;
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let length = data.len().min(bytes.len());
    bytes[..length].copy_from_slice(&data[..length]);
    SegmentHeader::decode(&bytes).ok();
    let crc_at = SEGMENT_HEADER_BYTES - 4;
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
    let Ok((header, is_whole)) = SegmentHeader::decode(&file_start(&bytes)) else {
        return;
    };
    assert!(is_whole);
    let again = SegmentHeader::decode(&file_start(&header.encode()));
    assert_eq!(again, Ok((header, true)));
}

pub(super) fn segment_seeds() -> Vec<Vec<u8>> {
    seeds(
        &[0, 1, 2],
        &[
            &b"\x05hello\x03abc\x00\x20more and more\xf5\xc1\xfe\x91"[..],
            b"\x01a\x01b\xff\x00\x20\x01\xff\x04\x20\x80",
            b"\x28in which a frame is copied\xff\x00\x20\x01",
            b"",
        ],
    )
}

/// Records are written, bytes damaged, and the segment scanned: nothing is found that was not
/// written, and what is not found is reported.
///
/// The input is the records' lengths and bytes, up to a length of 255; then damage: an offset in two
/// bytes, and what to flip there. The first byte says whether a later segment states the end.
pub(super) fn segment(data: &[u8]) {
    let (stated, mut rest) = choice(data);
    let header = header();
    let mut file = file_start(&header.encode());
    let (mut written, mut items): (u64, _) = (0, header.counts);
    while let Some((&length, behind)) = rest.split_first().filter(|(length, _)| **length < 255) {
        let (payload, behind) = behind.split_at(behind.len().min(usize::from(length)));
        rest = behind;
        let stream = written % 3;
        let count = &mut items[to_usize(stream)];
        *count += u64::from(length);
        let frame = FrameHeader {
            payload_bytes: u32::try_from(payload.len()).expect("a byte's worth"),
            stream: u8::try_from(stream).expect("one of three"),
            items: u32::from(length),
            group_back: 0,
            sequence: header.first_sequence + written,
            cumulative: *count,
            payload_crc: crc32c::crc32c(payload),
        };
        let at = file.len() as u64;
        frame.encode(header.seed(), at, &mut file);
        file.extend_from_slice(payload);
        written += 1;
        if behind.is_empty() {
            break;
        }
    }
    let end = file.len() as u64;
    let frames_start = to_usize(FRAMES_START);
    let damage = rest.get(1..).unwrap_or_default();
    let mut is_damaged = false;
    for flip in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([flip[0], flip[1]]));
        // Another target takes the header.
        if let Some(byte) = file.get_mut(at).filter(|_| at >= frames_start) {
            *byte ^= flip[2];
            is_damaged |= flip[2] != 0;
        }
    }
    let stated = match stated % 3 {
        0 => None,
        whole => Some(Predecessor {
            number: header.number,
            end,
            whole: whole == 1,
        }),
    };
    let report = scan_segment("x", &file, stated, &[0; STREAMS_MAX]).expect("the header is sound");
    assert!(report.frames <= written);
    assert!(report.end <= end && report.end >= FRAMES_START);
    for damage in &report.damage {
        assert!(damage.offset >= FRAMES_START && damage.offset + damage.bytes <= end);
    }
    for (stream, written) in report.streams.iter().zip(items) {
        assert!(stream.items <= written);
    }
    if !is_damaged {
        assert_eq!((report.frames, report.end), (written, end));
        assert!(report.damage.is_empty() && report.tail_bytes == 0);
        assert_eq!(report.counts, items);
    }
    // Any bytes behind the header.
    let raw = [file_start(&header.encode()), data.to_vec()].concat();
    drop(scan_segment("x", &raw, stated, &[0; STREAMS_MAX]));
    black_box(FrameHeader::decode(data, header.seed(), FRAME_HEADER_BYTES));
}

pub(super) fn opening_seeds() -> Vec<Vec<u8>> {
    let id = Uuid::from_u128(7);
    let openings = [
        format!(
            "recsys-ingest openings 1\ninstance {id}\nlineage {id}\ninherited 1 2\nopening {id} 41 5 6\nopening {id} 90"
        ),
        format!("recsys-ingest openings 1\ninstance {id}\nlineage {id}\ninherited"),
    ];
    openings.map(String::into_bytes).to_vec()
}

/// A record of openings with a corrected checksum is read as it was written, or is refused.
pub(super) fn openings(data: &[u8]) {
    let body = format!("{}\n", super::input::text(data));
    let sealed = format!("{body}crc {:08x}\n", crc32c::crc32c(body.as_bytes()));
    let Some(history) = History::decode(&sealed) else {
        return;
    };
    assert_eq!(History::decode(&history.encode()), Some(history));
}

pub(super) fn cache_seeds() -> Vec<Vec<u8>> {
    let id = Uuid::from_u128(7);
    let document = format!(
        r#"{{"confirmed_at_us":5,"tenants":[{{"id":"{id}","external_id":"demo","status":"active","settings":{{"surfaces":["home"]}}}}],"keys":[{{"id":"{id}","tenant_id":"{id}","key_hash":"{}","roles":["ingest"],"expires_at_us":null,"revoked":false,"settings":{{"origins":["https://a.example"]}}}}]}}"#,
        "ab".repeat(32)
    );
    vec![
        document.into_bytes(),
        br#"{"confirmed_at_us":-1,"tenants":[],"keys":[]}"#.to_vec(),
    ]
}

/// A copy of keys with a corrected seal is read as it was written, or is refused.
pub(super) fn key_cache(data: &[u8]) {
    let hasher = ApiKeyHasher::new(b"pepper");
    assert!(
        format::decode(data, &hasher).is_err(),
        "no one guesses a seal"
    );
    let mut sealed = format!(
        "recsys-ingest keys 1 {}\n",
        hasher.seal().over(data).into_hex()
    )
    .into_bytes();
    sealed.extend_from_slice(data);
    let Ok((snapshot, at)) = format::decode(&sealed, &hasher) else {
        return;
    };
    let written = |snapshot: &Snapshot| {
        let mut bytes = Vec::new();
        format::write(snapshot, at, &hasher, &mut bytes).expect("a snapshot is JSON");
        bytes
    };
    let again = written(&snapshot);
    let (same, at_again) = format::decode(&again, &hasher).expect("what was written is read");
    assert_eq!(
        (at_again, same.keys(), same.tenants()),
        (at, snapshot.keys(), snapshot.tenants())
    );
    assert_eq!(again, written(&same));
}
