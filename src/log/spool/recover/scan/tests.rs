#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use proptest::prelude::*;
use uuid::Uuid;

use super::report::{DamageKind, Ending};
use super::segment::trimmed;
use super::*;
use crate::log::spool::format::{
    FRAMES_START, FrameHeader, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_COPY_AT, STREAMS_MAX,
};

/// A segment of groups of payloads, and where each frame begins and ends.
fn segment(groups: &[&[Vec<u8>]]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let header = SegmentHeader {
        spool_id: Uuid::from_u128(1),
        number: 5,
        first_sequence: 10,
        predecessor: None,
        counts: [100; STREAMS_MAX],
        recycled: false,
    };
    let mut file = vec![0; to_usize(FRAMES_START)];
    let copy_at = to_usize(SEGMENT_HEADER_COPY_AT);
    file[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    file[copy_at..copy_at + SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    let (mut places, mut sequence, mut counts) = (Vec::new(), 10, header.counts);
    for group in groups {
        let group_start = file.len();
        for payload in *group {
            let start = file.len();
            let stream = sequence % 3;
            counts[usize::try_from(stream).unwrap()] += 2;
            let frame = FrameHeader {
                payload_bytes: u32::try_from(payload.len()).unwrap(),
                stream: u8::try_from(stream).unwrap(),
                items: 2,
                group_back: u32::try_from(start - group_start).unwrap(),
                sequence,
                cumulative: counts[usize::try_from(stream).unwrap()],
                payload_crc: crc32c::crc32c(payload),
            };
            frame.encode(header.seed(), start as u64, &mut file);
            file.extend_from_slice(payload);
            places.push((start, file.len()));
            sequence += 1;
        }
    }
    (file, places)
}

fn scan(file: &[u8]) -> SegmentReport {
    scan_segment("test", file, None, &NOTHING_SETTLED).unwrap()
}

/// The indexes of the frames that the report counts as sound.
fn survivors(report: &SegmentReport, places: &[(usize, usize)]) -> Vec<usize> {
    let bad = |&(from, _): &(usize, usize)| {
        from as u64 >= report.end
            || report.damage.iter().any(|damage| {
                (damage.offset..damage.offset + damage.bytes).contains(&(from as u64))
            })
    };
    (0..places.len()).filter(|&at| !bad(&places[at])).collect()
}

fn sample() -> (Vec<u8>, Vec<(usize, usize)>) {
    let text = |n: usize| vec![b'a' + u8::try_from(n).unwrap(); 20 + n];
    // Payloads with trailing zeros, with a marker inside, and empty.
    let marker = [&crate::log::spool::format::FRAME_MARKER[..], &[1; 60]].concat();
    segment(&[
        &[text(0)],
        &[text(1), vec![7, 0, 0, 0], text(2)],
        &[marker, Vec::new()],
        &[text(3), text(4), vec![0; 30]],
    ])
}

#[test]
fn a_segment_cut_at_any_byte_keeps_the_frames_before_the_cut_and_nothing_else() {
    let (file, places) = sample();
    for padding in [0, 1000] {
        for cut in to_usize(FRAMES_START)..=file.len() {
            let mut short = file[..cut].to_vec();
            short.resize(cut + padding, 0);
            let report = scan(&short);
            let whole = places.iter().filter(|&&(_, end)| end <= cut).count() as u64;
            // Trailing zeros that the cut took from a payload come back with the padding.
            let with_zeros = whole + u64::from(padding > 0);
            assert!(
                (whole..=with_zeros).contains(&report.frames),
                "cut at {cut}"
            );
            assert!(report.damage.is_empty());
            let clean = report.end == trimmed(&short).max(to_usize(FRAMES_START)) as u64
                || trimmed(&short) as u64 <= report.end;
            assert_eq!(report.ending == Ending::Clean, clean, "cut at {cut}");
        }
    }
}

#[test]
fn a_bit_flipped_anywhere_costs_the_frame_that_it_is_in_and_is_told() {
    let (mut file, places) = sample();
    let written = file.len();
    file.resize(written + 600, 0);
    for bit in to_usize(FRAMES_START) * 8..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let report = scan(&flipped);
        let hit = places
            .iter()
            .position(|&(from, to)| (from..to).contains(&(bit / 8)));
        let expected: Vec<usize> = (0..places.len()).filter(|&at| Some(at) != hit).collect();
        assert_eq!(survivors(&report, &places), expected, "bit {bit}");
        assert_eq!(report.frames, expected.len() as u64, "bit {bit}");
        match hit {
            // Damage to the last frame looks the same as a torn write.
            Some(at) if at + 1 == places.len() => assert_eq!(report.ending, Ending::Torn),
            Some(at) => {
                assert_eq!(report.damage.len(), 1, "bit {bit}");
                // The last group begins with the seventh frame.
                let kind = if at < 6 {
                    DamageKind::Corrupt
                } else {
                    DamageKind::Torn
                };
                assert_eq!(report.damage[0].kind, kind, "bit {bit}");
                let lost: u64 = report.lost_items.iter().sum();
                assert_eq!(lost, if at < 6 { 2 } else { 0 }, "bit {bit}");
            }
            None => assert_eq!((report.ending, report.damage.len()), (Ending::Torn, 0)),
        }
    }
}

#[test]
fn a_frame_inside_a_payload_is_never_taken_for_a_frame() {
    let (inner, places) = sample();
    let copied = inner[places[0].0..places[3].1].to_vec();
    let (mut file, places) = segment(&[&[copied], &[vec![1; 10]]]);
    let sound = scan(&file);
    assert_eq!((sound.frames, sound.damage.len()), (2, 0));
    // Not even when the search for the next frame goes through that payload.
    file[places[0].0] ^= 1;
    let report = scan(&file);
    assert_eq!(survivors(&report, &places), [1]);
    assert_eq!(report.frames, 1);
}

#[test]
fn a_group_torn_in_the_middle_counts_only_what_is_left_of_it() {
    let (mut file, places) = sample();
    let (from, to) = places[7];
    file[from..to].fill(0);
    let report = scan(&file);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].kind, DamageKind::Torn);
    assert_eq!(report.frames, 8);
    let counted: u64 = report.counts[..3].iter().sum();
    assert_eq!(counted, 300 + 8 * 2);
}

proptest! {
    #[test]
    fn whatever_is_overwritten_frames_elsewhere_are_found_and_no_others(
        sizes in prop::collection::vec(prop::collection::vec(0..200_usize, 1..4), 1..6),
        from in 0..2000_usize,
        noise in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let groups: Vec<Vec<Vec<u8>>> = sizes
            .iter()
            .map(|group| group.iter().map(|&size| vec![0xaa; size]).collect())
            .collect();
        let groups: Vec<&[Vec<u8>]> = groups.iter().map(Vec::as_slice).collect();
        let (mut file, places) = segment(&groups);
        let before = file.clone();
        let from = to_usize(FRAMES_START) + from % (file.len() - to_usize(FRAMES_START));
        for (byte, noise) in file[from..].iter_mut().zip(&noise) {
            *byte = *noise;
        }
        let report = scan(&file);
        let intact: Vec<usize> = (0..places.len())
            .filter(|&at| file[places[at].0..places[at].1] == before[places[at].0..places[at].1])
            .collect();
        prop_assert_eq!(survivors(&report, &places), intact.clone());
        prop_assert_eq!(report.frames, intact.len() as u64);
    }

    #[test]
    fn any_bytes_at_all_can_be_scanned(mut bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let (mut file, _) = segment(&[]);
        file.append(&mut bytes);
        prop_assert_eq!(scan(&file).frames, 0);
        // A file that is not a segment is an error, not a panic.
        prop_assert!(scan_segment("test", &file[9000.min(file.len())..], None, &NOTHING_SETTLED).is_err());
    }
}
