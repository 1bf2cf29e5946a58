//! Names, headers and numbers that no spool in this directory has written.

use proptest::prelude::*;
use uuid::Uuid;

use super::super::disk::faulty::FaultyDisk;
use super::super::format::{
    FRAMES_START, NUMBER_MAX, Predecessor, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_COPY_AT,
    STREAMS_MAX, SegmentHeader, segment_name, to_usize,
};
use super::rig::{Rig, segments, settings};
use crate::log::record::AppendError;

/// Ids 1 to 4 of stream 0 in two segments, and the spool id.
fn filled() -> (FaultyDisk, Uuid) {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    for id in 1..=4 {
        assert_eq!(rig.commit(&[(0, id, 600)]), [Ok(())]);
    }
    let spool_id = rig.spool.id();
    (disk.crash(0), spool_id)
}

fn file_of(header: &SegmentHeader) -> Vec<u8> {
    let mut file = vec![0; to_usize(FRAMES_START) + 100];
    let copy_at = to_usize(SEGMENT_HEADER_COPY_AT);
    file[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    file[copy_at..copy_at + SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    file
}

fn header(spool_id: Uuid) -> SegmentHeader {
    SegmentHeader {
        spool_id,
        number: 50,
        first_sequence: 500,
        predecessor: None,
        counts: [1000; STREAMS_MAX],
        recycled: false,
    }
}

/// The records found are delivered, in this run and the next, and so are new ones.
fn assert_goes_on(disk: &FaultyDisk) {
    let mut rig = Rig::open(disk).unwrap();
    assert_eq!(rig.take_all()[0], [1, 2, 3, 4]);
    assert_eq!(rig.commit(&[(0, 5, 100)]), [Ok(())]);
    let taken = rig.take(0, usize::MAX);
    assert!((5..NUMBER_MAX).contains(&taken[0].sequence));
    let mut after = Rig::open(&disk.crash(0)).unwrap();
    assert_eq!(after.take_all()[0], [1, 2, 3, 4, 5]);
}

#[test]
fn a_file_of_random_bytes_is_set_aside_and_its_name_is_not_believed() {
    for name in [
        u64::MAX,
        u64::MAX - 1,
        NUMBER_MAX + 1,
        NUMBER_MAX,
        1 << 57,
        0,
    ] {
        let (disk, _) = filled();
        let name = segment_name(name);
        disk.place(&name, Some(&[0xa7; 9000]));
        assert_goes_on(&disk);
        let aside = format!("{name}.damaged");
        assert_eq!(disk.content(&aside).unwrap(), [0xa7; 9000]);
        // Another file with that name does not replace it.
        disk.place(&name, Some(&[1; 10]));
        Rig::open(&disk).unwrap();
        assert_eq!(disk.content(&aside).unwrap(), [0xa7; 9000]);
        assert_eq!(disk.content(&format!("{aside}-2")).unwrap(), [1; 10]);
    }
}

#[test]
fn a_sound_header_with_numbers_that_no_spool_gets_to_is_set_aside() {
    for change in [
        |header: &mut SegmentHeader| header.number = u64::MAX,
        |header: &mut SegmentHeader| header.first_sequence = u64::MAX,
        |header: &mut SegmentHeader| header.counts[3] = u64::MAX,
        |header: &mut SegmentHeader| {
            header.predecessor = Some(Predecessor {
                number: 2,
                end: u64::MAX,
                whole: true,
            });
        },
    ] {
        let (disk, spool_id) = filled();
        let mut header = header(spool_id);
        change(&mut header);
        disk.place(&segment_name(500), Some(&file_of(&header)));
        assert_goes_on(&disk);
        assert!(
            disk.names()
                .contains(&"00000000000001f4.seg.damaged".into())
        );
    }
}

#[test]
fn when_numbers_run_out_frames_are_refused_and_nothing_wraps() {
    let last = |change: fn(&mut SegmentHeader)| {
        let (disk, spool_id) = filled();
        let mut header = header(spool_id);
        change(&mut header);
        let name = segment_name(header.first_sequence);
        disk.place(&name, Some(&file_of(&header)));
        Rig::open(&disk).unwrap()
    };
    let mut rig = last(|header| header.number = NUMBER_MAX);
    assert_eq!(rig.commit(&[(0, 5, 100)]), [Err(AppendError::Failed)]);
    assert_eq!(rig.take_all()[0], [1, 2, 3, 4]);
    let mut rig = last(|header| header.first_sequence = NUMBER_MAX - 1);
    let refused = Err(AppendError::Failed);
    let group = [(0, 5, 100), (0, 7, 100)];
    assert_eq!(rig.commit(&group), [Ok(()), refused]);
    let mut rig = last(|header| header.counts[0] = NUMBER_MAX - 3);
    // Id 1 has two items.
    let group = [(0, 1, 100), (0, 1, 100), (1, 1, 100)];
    assert_eq!(rig.commit(&group), [Ok(()), refused, Ok(())]);
}

#[test]
fn a_copy_of_a_segment_under_another_name_is_set_aside() {
    let (disk, _) = filled();
    let original = segments(&disk)[0].clone();
    for copy in [segment_name(0), segment_name(77)] {
        disk.place(&copy, disk.content(&original).as_deref());
        assert_goes_on(&disk.crash(0));
    }
}

#[test]
fn two_segments_that_contradict_each_other_are_refused_with_both_names() {
    let (disk, spool_id) = filled();
    let header = SegmentHeader {
        first_sequence: 2,
        ..header(spool_id)
    };
    disk.place(&segment_name(2), Some(&file_of(&header)));
    let error = Rig::open(&disk).err().unwrap().to_string();
    assert!(error.contains("0000000000000002.seg"), "{error}");
    assert!(error.contains("0000000000000003.seg"), "{error}");
}

#[test]
fn a_watermark_that_cannot_be_ours_uses_up_no_sequences() {
    let (disk, _) = filled();
    let mut rig = Rig::open(&disk).unwrap();
    assert!(!rig.readers[0].skip_to(i64::MAX.cast_unsigned()));
    assert_eq!(rig.commit(&[(0, 5, 100)]), [Ok(())]);
    let taken = rig.take(0, usize::MAX);
    assert!(taken[4].sequence < 100);
}

#[test]
fn a_segment_that_was_begun_and_not_used_does_not_share_its_name_with_the_next() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
    disk.fail(2, super::super::disk::faulty::Fault::Fails);
    assert_eq!(rig.commit(&[(0, 2, 100)]), [Err(AppendError::Failed)]);
    // This begins a segment to see whether the disk works. The next record does not fit into
    // it.
    rig.committer.tick();
    assert_eq!(rig.commit(&[(0, 3, 2500)]), [Ok(())]);
    let before = rig.segments();
    rig.committer.tick();
    assert_eq!(rig.take_all()[0], [1, 3]);
    rig.spool.ack(0, 1);
    rig.committer.tick();
    let left = rig.segments();
    assert!(left.iter().all(|name| before.contains(name)), "{left:?}");
    let mut after = Rig::open(&disk.crash(0)).unwrap();
    assert_eq!(after.take_all()[0].last(), Some(&3), "{before:?} {left:?}");
}

proptest! {
    #[test]
    fn whatever_lies_in_the_directory_the_spool_opens_or_says_why_not(
        files in prop::collection::vec((any::<u64>(), 0..4_u8, prop::collection::vec(any::<u8>(), 0..300), any::<[u64; 6]>()), 1..4),
    ) {
        let (disk, spool_id) = filled();
        for (name, kind, bytes, numbers) in files {
            let [a, b, c, d, e, f] = numbers;
            // Small numbers and impossible ones.
            let some = |n: u64| n >> (n % 64);
            let content = match kind {
                0 => bytes,
                1 => [vec![0; 8200], bytes].concat(),
                _ => file_of(&SegmentHeader {
                    spool_id,
                    number: some(a),
                    first_sequence: some(b),
                    predecessor: (kind == 2).then_some(Predecessor { number: some(c), end: some(d), whole: e % 2 == 0 }),
                    counts: [some(f); STREAMS_MAX],
                    recycled: false,
                }),
            };
            let name = segment_name(some(name));
            if disk.content(&name).is_none() {
                disk.place(&name, Some(&content));
            }
        }
        match Rig::open(&disk) {
            Err(error) => prop_assert!(error.to_string().contains(".seg"), "{error:#}"),
            Ok(mut rig) => {
                prop_assert_eq!(&rig.take_all()[0], &[1, 2, 3, 4]);
                for id in 5..8 {
                    if rig.commit(&[(0, id, 100)]) == [Ok(())] {
                        let taken = rig.take(0, 1);
                        prop_assert!(taken[0].sequence <= NUMBER_MAX);
                    } else {
                        prop_assert!(rig.spool.usage().failed || rig.spool.usage().accepted[0] > NUMBER_MAX - 10);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_written_or_removed_once_another_directory_is_in_place() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open_with(&disk, settings()).unwrap();
    for id in 1..=4 {
        assert_eq!(rig.commit(&[(0, id, 600)]), [Ok(())]);
    }
    disk.move_away();
    let names = disk.names();
    rig.committer.tick();
    assert_eq!(rig.commit(&[(0, 5, 10)]), [Err(AppendError::Gone)]);
    assert_eq!(rig.spool.has_room(10), Err(AppendError::Gone));
    assert_eq!(rig.take(0, 3).len(), 3);
    rig.spool.ack(0, u64::MAX);
    assert_eq!(rig.spool.reclaim(), 0);
    assert_eq!(disk.names(), names);
}

#[test]
fn a_newest_segment_that_was_removed_takes_no_frame_any_more() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
    let newest = rig.segments().pop().unwrap();
    disk.place(&newest, None);
    rig.committer.tick();
    // A new segment takes records.
    assert_eq!(rig.commit(&[(0, 2, 100)]), [Ok(())]);
    assert_ne!(rig.segments(), [newest]);
    assert_eq!(Rig::open(&disk.crash(0)).unwrap().take_all()[0], [2]);
}
