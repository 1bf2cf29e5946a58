//! Bytes that were synced and are corrupt now.

use super::super::disk::faulty::FaultyDisk;
use super::super::recover::scan::report::{DamageKind, Ending};
use super::rig::{Rig, segments};

/// Three segments; the first holds ids 1 to 5, one group each.
fn filled() -> FaultyDisk {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    for id in 1..=12 {
        assert_eq!(rig.commit(&[(0, id, 256)]), [Ok(())]);
    }
    assert_eq!(rig.segments().len(), 3);
    disk.crash(0)
}

#[test]
fn damage_in_the_middle_costs_one_frame_and_its_bytes_are_copied() {
    let disk = filled();
    let first = segments(&disk)[0].clone();
    disk.flip(&first, 8192 + 300 + 100);
    let mut rig = Rig::open(&disk).unwrap();
    assert!(rig.report.is_damaged());
    let damage = rig.report.segments[0].damage[0];
    assert_eq!((damage.offset, damage.bytes), (8192 + 300, 300));
    assert_eq!(damage.kind, DamageKind::Corrupt);
    assert_eq!(rig.report.segments[0].lost_items[0], 3);
    let copy = disk.content("damaged-0000000000000001-8492.bin").unwrap();
    assert_eq!(copy, disk.content(&first).unwrap()[8492..8792]);
    assert_eq!(rig.take_all()[0], [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let fill = rig.spool.usage();
    assert_eq!(fill.lost, 3);
    // The accepted count includes the lost items.
    let accepted: u64 = (1..=12).map(|id| id % 7 + 1).sum();
    assert_eq!(fill.accepted[0], accepted);
    assert_eq!(fill.items[0], accepted - 3);
}

#[test]
fn damage_at_the_end_of_a_segment_that_has_a_successor_is_not_taken_for_a_torn_write() {
    let disk = filled();
    let first = segments(&disk)[0].clone();
    disk.flip(&first, 8192 + 4 * 300 + 3);
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.report.segments[0].ending, Ending::Missing);
    assert!(rig.report.is_damaged());
    assert_eq!(rig.take_all()[0], [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn a_segment_without_a_readable_header_is_set_aside_and_the_others_are_given() {
    let disk = filled();
    let second = segments(&disk)[1].clone();
    disk.flip(&second, 33);
    disk.flip(&second, 4096 + 33);
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.report.unreadable.len(), 1);
    assert!(disk.names().contains(&format!("{second}.damaged")));
    assert_eq!(rig.take_all()[0], [1, 2, 3, 4, 5, 11, 12]);
}

#[test]
fn sequences_go_on_beyond_those_of_a_segment_that_cannot_be_read() {
    let disk = filled();
    let last = segments(&disk)[2].clone();
    disk.flip(&last, 33);
    disk.flip(&last, 4096 + 33);
    let mut rig = Rig::open(&disk).unwrap();
    rig.take(0, usize::MAX);
    assert_eq!(rig.commit(&[(0, 100, 50)]), [Ok(())]);
    assert!(rig.take(0, 1)[0].sequence > 12);
}

#[test]
fn one_bad_copy_of_a_header_costs_nothing() {
    let disk = filled();
    let first = segments(&disk)[0].clone();
    disk.flip(&first, 33);
    let mut rig = Rig::open(&disk).unwrap();
    assert!(rig.report.segments[0].header_copy_damaged);
    assert_eq!(rig.take_all()[0].len(), 12);
}

#[test]
fn a_frame_that_rots_while_the_service_runs_is_passed_over_copied_and_counted_as_lost() {
    // The last record before the reader catches up, one in the middle, the first.
    for (lost, name, offset) in [
        (7, "0000000000000006.seg", 8192 + 300 + 50),
        (6, "0000000000000006.seg", 8192 + 10),
        (12, "000000000000000b.seg", 8192 + 300 + 1),
    ] {
        let disk = FaultyDisk::default();
        let mut rig = Rig::open(&disk).unwrap();
        for id in 1..=12 {
            rig.commit(&[(0, id, 256)]);
        }
        disk.flip(name, offset);
        let found = rig.take_all();
        let expected: Vec<u64> = (1..=12).filter(|&id| id != lost).collect();
        assert_eq!(found[0], expected);
        assert_eq!(rig.spool.usage().lost, lost % 7 + 1);
        assert!(disk.names().iter().any(|name| name.starts_with("damaged-")));
        // The lane continues, in memory again.
        assert_eq!(rig.commit(&[(0, 13, 256)]), [Ok(())]);
        assert!(!rig.readers[0].is_on_disk());
        assert_eq!(rig.take_all()[0], [13]);
        rig.spool.ack(0, u64::MAX);
        rig.committer.tick();
        let fill = rig.spool.usage();
        assert_eq!((fill.frames[0], fill.items[0], fill.segments), (0, 0, 1));
    }
}

#[test]
fn a_segment_of_another_spool_stops_the_start_with_both_names() {
    let (disk, other) = (filled(), filled());
    let name = segments(&other)[2].clone();
    disk.place(&name, other.content(&name).as_deref());
    let error = Rig::open(&disk).err().unwrap();
    let text = format!("{error:#}");
    assert!(
        text.contains(&name) && text.contains("belongs to spool"),
        "{text}"
    );
}

#[test]
fn a_lost_instance_file_is_written_again_from_what_the_segments_say() {
    let disk = filled();
    let before = disk.content("instance").unwrap();
    disk.place("instance", None);
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(disk.content("instance").unwrap(), before);
    assert!(
        String::from_utf8(before)
            .unwrap()
            .contains(&rig.spool.id().to_string())
    );
}

#[test]
fn a_directory_that_lost_its_segments_becomes_another_spool() {
    let disk = filled();
    let before = Rig::open(&disk).unwrap().spool.id();
    for name in segments(&disk) {
        disk.place(&name, None);
    }
    let rig = Rig::open(&disk).unwrap();
    assert!(rig.report.has_lost_its_segments());
    assert_ne!(rig.spool.id(), before);
    assert_eq!(rig.spool.usage().accepted[0], 0);
    // It is told once: the new spool has lost nothing.
    assert!(!Rig::open(&disk).unwrap().report.has_lost_its_segments());
}

#[test]
fn a_spool_that_was_never_used_has_lost_nothing() {
    let disk = FaultyDisk::default();
    for start in 0..3 {
        let rig = Rig::open(&disk).unwrap();
        assert!(!rig.report.has_lost_its_segments(), "start {start}");
    }
    let mut rig = Rig::open(&disk.crash(0)).unwrap();
    assert!(!rig.report.has_lost_its_segments(), "after a power cut");
    let disk = rig.disk.clone();
    assert_eq!(rig.commit(&[(0, 1, 256)]), [Ok(())]);
    assert_eq!(rig.take_all(), [vec![1], vec![]]);
    rig.spool.ack(0, u64::MAX);
    rig.committer.tick();
    drop(rig);
    // One event is use, also once it is stored and also after a power cut.
    for disk in [disk.clone(), disk.crash(1)] {
        assert!(!Rig::open(&disk).unwrap().report.has_lost_its_segments());
        for name in segments(&disk) {
            disk.place(&name, None);
        }
        assert!(Rig::open(&disk).unwrap().report.has_lost_its_segments());
    }
}

#[test]
fn a_mark_that_an_earlier_version_has_left_beside_its_segments_is_removed() {
    let disk = filled();
    disk.place("unused", Some(&[]));
    drop(Rig::open(&disk).unwrap());
    for name in segments(&disk) {
        disk.place(&name, None);
    }
    assert!(Rig::open(&disk).unwrap().report.has_lost_its_segments());
}

#[test]
fn a_segment_that_is_removed_while_the_service_runs_is_written_off_and_stops_no_lane() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    for id in 1..=12 {
        assert_eq!(rig.commit(&[(0, id, 256)]), [Ok(())]);
    }
    disk.place("0000000000000006.seg", None);
    assert_eq!(rig.take_all()[0], [1, 2, 3, 4, 5, 11, 12]);
    let lost: u64 = (6..=10).map(|id| id % 7 + 1).sum();
    assert_eq!(rig.spool.usage().lost, lost);
    assert_eq!(rig.commit(&[(0, 13, 256)]), [Ok(())]);
    assert_eq!(rig.take_all()[0], [13]);
    rig.spool.ack(0, u64::MAX);
    rig.committer.tick();
    assert_eq!((rig.segments().len(), rig.spool.usage().items[0]), (1, 0));
}
