#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use proptest::prelude::*;

use super::*;

fn header() -> SegmentHeader {
    SegmentHeader {
        spool_id: Uuid::from_u128(7),
        number: 3,
        first_sequence: 41,
        predecessor: Some(Predecessor {
            number: 2,
            end: 9000,
            whole: true,
        }),
        counts: std::array::from_fn(|stream| stream as u64 * 10),
        recycled: false,
    }
}

fn file_start(header: &SegmentHeader) -> Vec<u8> {
    let mut file = vec![0; to_usize(FRAMES_START)];
    let copy_at = to_usize(SEGMENT_HEADER_COPY_AT);
    file[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    file[copy_at..copy_at + SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    file
}

#[test]
fn a_segment_header_comes_back_as_it_was() {
    for (predecessor, recycled) in [(None, false), (None, true), (header().predecessor, true)] {
        let header = SegmentHeader {
            predecessor,
            recycled,
            ..header()
        };
        let decoded = SegmentHeader::decode(&file_start(&header));
        assert_eq!(decoded, Ok((header, true)));
    }
}

#[test]
fn a_bit_flipped_anywhere_in_one_copy_of_the_header_is_noticed_and_costs_nothing() {
    let sound = file_start(&header());
    for bit in 0..SEGMENT_HEADER_BYTES * 8 {
        let mut file = sound.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&file), Ok((header(), false)));
    }
}

#[test]
fn a_header_damaged_twice_is_said_to_be_damaged() {
    let mut file = file_start(&header());
    file[20] ^= 1;
    file[to_usize(SEGMENT_HEADER_COPY_AT) + 90] ^= 1;
    assert_eq!(SegmentHeader::decode(&file), Err(HeaderError::Damaged));
}

#[test]
fn a_later_version_is_named_and_not_taken_for_damage() {
    let mut file = file_start(&header());
    file[8] = 3;
    let crc = crc32c::crc32c(&file[..HEADER_CRC_AT]).to_le_bytes();
    file[HEADER_CRC_AT..SEGMENT_HEADER_BYTES].copy_from_slice(&crc);
    assert_eq!(SegmentHeader::decode(&file), Err(HeaderError::Version(3)));
}

#[test]
fn a_header_of_version_1_has_16_streams_and_counts_nothing_for_the_others() {
    let sound = header();
    let mut file = file_start(&sound);
    for at in [0, to_usize(SEGMENT_HEADER_COPY_AT)] {
        file[at + 8] = 1;
        let crc = crc32c::crc32c(&file[at..at + HEADER_CRC_AT]).to_le_bytes();
        file[at + HEADER_CRC_AT..at + SEGMENT_HEADER_BYTES].copy_from_slice(&crc);
    }
    let mut counts = [0; STREAMS_MAX];
    counts[..16].copy_from_slice(&sound.counts[..16]);
    let expected = SegmentHeader { counts, ..sound };
    assert_eq!(SegmentHeader::decode(&file), Ok((expected, true)));
}

#[test]
fn a_header_with_numbers_that_no_spool_gets_to_is_not_believed() {
    let before = |number, end| SegmentHeader {
        predecessor: Some(Predecessor {
            number,
            end,
            whole: true,
        }),
        ..header()
    };
    for strange in [
        SegmentHeader {
            number: u64::MAX,
            ..header()
        },
        SegmentHeader {
            first_sequence: NUMBER_MAX + 1,
            ..header()
        },
        SegmentHeader {
            counts: [u64::MAX; STREAMS_MAX],
            ..header()
        },
        before(3, 9000),
        before(2, u64::MAX),
        before(2, 0),
    ] {
        let decoded = SegmentHeader::decode(&file_start(&strange));
        assert_eq!(decoded, Err(HeaderError::Impossible), "{strange:?}");
    }
}

#[test]
fn only_the_names_that_we_write_are_segments() {
    assert_eq!(first_sequence_in_name(&segment_name(255)), Some(255));
    for name in [
        "ff.seg",
        "00000000000000FF.seg",
        "+0000000000000ff.seg",
        "lock",
        "00000000000000ff.seg.damaged",
    ] {
        assert_eq!(first_sequence_in_name(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn a_frame_header_comes_back_only_at_its_own_place(
        payload_bytes in 0..=PAYLOAD_BYTES_MAX,
        stream in 0..16_u8,
        items: u32,
        sequence in 0..=NUMBER_MAX,
        before in 0..u64::from(u32::MAX),
        payload_crc: u32,
        offset in FRAMES_START..1 << 40,
        flipped in 0..44 * 8_usize,
    ) {
        let frame = FrameHeader {
            payload_bytes, stream, items, group_back: 100, sequence,
            cumulative: before + u64::from(items), payload_crc,
        };
        let seed = header().seed();
        let mut bytes = Vec::new();
        frame.encode(seed, offset, &mut bytes);
        prop_assert_eq!(bytes.len() as u64, FRAME_HEADER_BYTES);
        prop_assert_eq!(FrameHeader::decode(&bytes, seed, offset), Some(frame));
        prop_assert_eq!(FrameHeader::decode(&bytes, seed, offset + 1), None);
        let other = SegmentHeader { number: 4, ..header() }.seed();
        prop_assert_eq!(FrameHeader::decode(&bytes, other, offset), None);
        prop_assert_eq!(FrameHeader::decode(&bytes[..43], seed, offset), None);
        bytes[flipped / 8] ^= 1 << (flipped % 8);
        prop_assert_eq!(FrameHeader::decode(&bytes, seed, offset), None);
    }
}
