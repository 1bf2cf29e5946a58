//! A full spool refuses early, with a clear reason, and keeps nothing of what it refuses.

use super::super::disk::faulty::{Fault, FaultyDisk};
use super::super::settings::Settings;
use super::rig::{Rig, settings};
use crate::log::record::AppendError;

fn two_segments() -> Settings {
    let settings = settings();
    Settings {
        frame_bytes_max: 1000,
        bytes_max: 2 * settings.segment_bytes,
        ..settings
    }
}

#[test]
fn at_its_cap_the_spool_refuses_what_does_not_fit_and_takes_the_rest() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open_with(&disk, two_segments()).unwrap();
    let answers = rig.commit(&[
        (0, 1, 1000),
        (0, 2, 1000),
        (0, 3, 1000),
        (0, 4, 100),
        (1, 5, 100),
    ]);
    let full = Err(AppendError::AtCap);
    assert_eq!(answers, [Ok(()), Ok(()), full, Ok(()), Ok(())]);
    assert_eq!(rig.spool.has_room(1000), full);
    assert_eq!(rig.spool.has_room(10), Ok(()));
    assert_eq!(rig.spool.usage().bytes, two_segments().bytes_max);
    assert_eq!(rig.take_all(), [vec![1, 2, 4], vec![5]]);
    // Acking the first makes room again.
    rig.spool.ack(0, 1);
    assert_eq!(rig.commit(&[(0, 6, 1000)]), [Ok(())]);
    assert_eq!(rig.take_all(), [vec![6], vec![]]);
    let mut after = Rig::open_with(&disk.crash(1), two_segments()).unwrap();
    assert_eq!(after.take_all(), [vec![2, 4, 6], vec![5]]);
}

#[test]
fn a_spool_found_full_opens_and_drains() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open_with(&disk, two_segments()).unwrap();
    rig.commit(&[(0, 1, 1000), (0, 2, 1000)]);
    let mut rig = Rig::open_with(&disk.crash(1), two_segments()).unwrap();
    assert_eq!(rig.commit(&[(0, 3, 10)]), [Err(AppendError::AtCap)]);
    assert_eq!(rig.take_all(), [vec![1, 2], vec![]]);
    rig.spool.ack(0, u64::MAX);
    assert_eq!(rig.commit(&[(0, 3, 10)]), [Ok(())]);
}

#[test]
fn the_disk_reserve_is_left_alone() {
    let disk = FaultyDisk::default();
    let settings = Settings {
        disk_reserve_bytes: 100_000,
        ..settings()
    };
    disk.set_free_bytes(100_000);
    let mut rig = Rig::open_with(&disk, settings).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Err(AppendError::NoSpace)]);
    assert_eq!(rig.spool.has_room(1), Err(AppendError::NoSpace));
    assert!(rig.segments().is_empty());
    disk.set_free_bytes(200_000);
    rig.committer.tick();
    assert_eq!(rig.spool.has_room(1), Ok(()));
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
}

#[test]
fn a_disk_without_space_is_full_and_not_broken() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 1000)]), [Ok(())]);
    disk.fail(2, Fault::NoSpace); // After asking for space.
    let answers = rig.commit(&[(0, 2, 1000), (0, 3, 100)]);
    assert_eq!(answers, [Err(AppendError::NoSpace), Ok(())]);
    assert_eq!(rig.commit(&[(0, 4, 1000)]), [Ok(())]);
    assert_eq!(rig.take_all(), [vec![1, 3, 4], vec![]]);
}

#[test]
fn a_frame_larger_than_a_segment_gets_a_segment_of_its_own_size() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(
        rig.commit(&[(0, 1, 100), (0, 2, 3000), (0, 3, 100), (0, 4, 3001)]),
        [Ok(()), Ok(()), Ok(()), Err(AppendError::TooLarge)]
    );
    assert_eq!(rig.spool.has_room(3001), Err(AppendError::TooLarge));
    assert_eq!(rig.take_all(), [vec![1, 2, 3], vec![]]);
    let mut after = Rig::open(&disk.crash(1)).unwrap();
    assert_eq!(after.take_all(), [vec![1, 2, 3], vec![]]);
}

#[test]
fn settings_that_would_block_the_spool_are_refused_with_the_least_that_works() {
    let settings = Settings {
        bytes_max: 20_000,
        ..settings()
    };
    let error = Rig::open_with(&FaultyDisk::default(), settings)
        .err()
        .unwrap();
    assert!(error.to_string().contains("22472"), "{error:#}");
}
