//! Recycled segments: what a file held before is never delivered.

use super::super::disk::faulty::{Fault, FaultyDisk};
use super::super::recover::scan::report::Ending;
use super::rig::{Rig, settings};
use crate::log::record::AppendError;

/// Fills segments with one large record each and acks all; the newest segment stays.
fn settle_all_but_the_last(rig: &mut Rig, ids: std::ops::Range<u64>) {
    for id in ids {
        assert_eq!(rig.commit(&[(0, id, 1400)]), [Ok(())]);
        let frames = rig.take(0, usize::MAX);
        let sequence = frames.last().unwrap().sequence;
        rig.spool.ack(0, sequence);
    }
    rig.committer.tick();
}

fn recycled(disk: &FaultyDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.ends_with(".seg.new"));
    names
}

#[test]
fn a_file_that_is_done_with_is_used_again_and_what_it_held_is_never_given() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    settle_all_but_the_last(&mut rig, 1..5);
    assert_eq!(recycled(&disk).len(), 2, "{:?}", disk.names());
    // A small record at the start of a file that a larger one had filled.
    assert_eq!(rig.commit(&[(0, 5, 1400), (0, 6, 40)]), [Ok(()); 2]);
    assert_eq!(recycled(&disk).len(), 0, "{:?}", disk.names());
    assert_eq!(rig.take_all(), [vec![5, 6], vec![]]);
    for seed in 0..20 {
        let mut after = Rig::open(&disk.crash(seed)).unwrap();
        assert!(!after.report.is_damaged(), "{:#?}", after.report);
        let newest = after.report.segments.last().unwrap();
        assert_eq!((newest.frames, newest.ending), (1, Ending::Stale));
        let given = after.take_all();
        assert!(given[0].ends_with(&[5, 6]), "{given:?}");
        assert_eq!(after.commit(&[(1, 7, 40)]), [Ok(())]);
        assert_eq!(after.take_all(), [vec![], vec![7]]);
    }
}

#[test]
fn recycled_segments_never_take_more_space_than_the_segments_had() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    settle_all_but_the_last(&mut rig, 1..9);
    assert_eq!(recycled(&disk).len(), 2, "{:?}", disk.names());
    // A record that needs a file of another size removes the recycled segments.
    assert_eq!(rig.commit(&[(0, 9, 2500)]), [Ok(())]);
    assert_eq!(recycled(&disk).len(), 0, "{:?}", disk.names());
    // The end of the service removes them too.
    settle_all_but_the_last(&mut rig, 10..14);
    assert_eq!(recycled(&disk).len(), 2, "{:?}", disk.names());
    rig.spool.reclaim();
    assert_eq!(recycled(&disk).len(), 0, "{:?}", disk.names());
}

#[test]
fn a_file_whose_sync_failed_is_not_used_again() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
    disk.fail(2, Fault::Fails);
    assert_eq!(rig.commit(&[(0, 2, 100)]), [Err(AppendError::Failed)]);
    settle_all_but_the_last(&mut rig, 3..5);
    // Two files are no longer needed: one is recycled, the one with the failed sync is removed.
    let names = disk.names();
    assert_eq!(recycled(&disk).len(), 1, "{names:?}");
    assert_eq!(rig.segments().len(), 1, "{names:?}");
}

#[test]
fn a_start_removes_recycled_segments() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    settle_all_but_the_last(&mut rig, 1..5);
    let after = disk.crash(1);
    assert_eq!(recycled(&after).len(), 2);
    let again = Rig::open_with(&after, settings()).unwrap();
    assert_eq!(again.report.leftovers.len(), 2);
    assert_eq!(recycled(&after).len(), 0);
}
