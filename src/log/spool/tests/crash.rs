//! Each operation of the disk fails once; then the power fails.

use std::collections::BTreeSet;

use super::super::disk::faulty::{Fault, FaultyDisk};
use super::rig::{Rig, items};
use crate::log::record::AppendError;

/// Ids that were accepted, refused and acked, by stream.
#[derive(Debug, Default)]
struct Told {
    accepted: [Vec<u64>; 2],
    refused: [BTreeSet<u64>; 2],
    acked: [BTreeSet<u64>; 2],
}

/// Two streams, groups of several sizes, several segments, a record larger than a segment,
/// deletions. Ends early if the spool cannot be opened.
fn script(disk: &FaultyDisk) -> Told {
    let mut told = Told::default();
    let Ok(mut rig) = Rig::open(disk) else {
        return told;
    };
    let mut id = 0;
    let mut given: [Vec<u64>; 2] = Default::default();
    for round in 0..7_usize {
        let group: Vec<(u8, u64, usize)> = (0..=round % 4)
            .map(|_| {
                id += 1;
                let bytes = if id == 9 {
                    2500
                } else {
                    40 + 97 * usize::try_from(id % 5).unwrap()
                };
                (u8::try_from(id % 2).unwrap(), id, bytes)
            })
            .collect();
        for (&(stream, id, _), answer) in group.iter().zip(rig.commit(&group)) {
            let stream = usize::from(stream);
            match answer {
                Ok(()) => told.accepted[stream].push(id),
                Err(_) => drop(told.refused[stream].insert(id)),
            }
        }
        // Stream 1 is drained in every round, stream 0 only later.
        for stream in if round > 3 { 0..2 } else { 1..2 } {
            for frame in take_stubbornly(&mut rig, stream) {
                given[stream].push(frame.1);
                if frame.1 % 3 != 0 || round == 6 {
                    rig.spool.ack(u8::try_from(stream).unwrap(), frame.0);
                    let acked = given[stream].iter().copied();
                    told.acked[stream].extend(acked);
                }
            }
        }
        rig.committer.tick();
    }
    // Once the disk can be read, this run has delivered exactly the accepted records, each once
    // and in order.
    disk.mend();
    for (stream, mut given) in given.into_iter().enumerate() {
        let rest = take_stubbornly(&mut rig, stream);
        given.extend(rest.iter().map(|frame| frame.1));
        assert_eq!(given, told.accepted[stream]);
    }
    told
}

fn take_stubbornly(rig: &mut Rig, stream: usize) -> Vec<(u64, u64)> {
    use crate::log::read::Next;
    let reader = &mut rig.readers[stream];
    let mut taken = Vec::new();
    let mut failures = 0;
    while failures < 3 {
        let frames = match reader.try_next() {
            Next::Record(frame) => vec![frame],
            Next::Fetch => reader.read_from_disk(1).unwrap_or_else(|_| {
                failures += 1;
                Vec::new()
            }),
            Next::Empty | Next::Ended => break,
        };
        let known = frames
            .iter()
            .map(|frame| (frame.sequence, super::rig::id_of(&frame.payload)));
        taken.extend(known);
    }
    taken
}

/// After any power loss, every accepted record is still on disk or acked.
fn check_recovery(disk: &FaultyDisk, told: &Told, doing: &str) {
    let mut rig = Rig::open(disk).unwrap_or_else(|error| panic!("{doing}: {error:#}"));
    assert!(!rig.report.is_damaged(), "{doing}: {:#?}", rig.report);
    let fill = rig.spool.usage();
    for (stream, recovered) in rig.take_all().into_iter().enumerate() {
        let found: BTreeSet<u64> = recovered.iter().copied().collect();
        assert!(
            recovered.is_sorted_by(|a, b| a < b),
            "{doing}: {recovered:?}"
        );
        assert_eq!(fill.frames[stream], recovered.len() as u64, "{doing}");
        for id in &told.accepted[stream] {
            assert!(
                found.contains(id) || told.acked[stream].contains(id),
                "{doing}: {id} of stream {stream} was promised: {told:?} {:#?}",
                rig.report
            );
        }
        let refused: Vec<u64> = found
            .difference(&told.accepted[stream].iter().copied().collect())
            .copied()
            .collect();
        for id in &refused {
            assert!(told.refused[stream].contains(id), "{doing}: {id}");
        }
        let count = |ids: &[u64]| ids.iter().map(|&id| u64::from(items(id))).sum::<u64>();
        assert_eq!(
            fill.accepted[stream],
            count(&told.accepted[stream]) + count(&refused),
            "{doing}: {told:?} {recovered:?} {:#?}",
            rig.report
        );
    }
    // The spool continues from there.
    assert_eq!(rig.commit(&[(0, 1000, 50), (1, 1001, 50)]), [Ok(()); 2]);
    assert_eq!(rig.take_all(), [[1000], [1001]]);
    let left = rig.segments().len();
    for stream in 0..2 {
        rig.spool.ack(stream, u64::MAX);
    }
    rig.committer.tick();
    assert_eq!(rig.segments().len(), 1, "{doing}: {left} before");
}

fn operations_of_script() -> u64 {
    let disk = FaultyDisk::default();
    script(&disk);
    disk.operations()
}

#[test]
fn what_was_promised_survives_the_failure_of_any_operation_followed_by_a_power_cut() {
    let operations = operations_of_script();
    assert!(operations > 60, "the script does too little: {operations}");
    let mut outcomes = BTreeSet::new();
    for fault in [Fault::Fails, Fault::Freezes, Fault::NoSpace] {
        for n in 1..=operations + 1 {
            let disk = FaultyDisk::default();
            disk.fail(n, fault);
            let told = script(&disk);
            let refused = told.refused.iter().any(|refused| !refused.is_empty());
            outcomes.insert((format!("{fault:?}"), refused));
            for seed in 0..12 {
                let doing = format!("{fault:?} at operation {n}, seed {seed}");
                check_recovery(&disk.crash(seed), &told, &doing);
            }
        }
    }
    // Each fault is felt at some operation, and not where it comes after the last.
    assert_eq!(outcomes.len(), 6, "{outcomes:?}");
}

#[test]
fn short_and_interrupted_reads_and_writes_are_carried_on_with() {
    let operations = operations_of_script();
    for n in 1..=operations {
        for fault in [Fault::Short, Fault::Interrupted] {
            let disk = FaultyDisk::default();
            disk.fail(n, fault);
            let told = script(&disk);
            assert!(
                told.refused.iter().all(BTreeSet::is_empty),
                "{fault:?} at {n}"
            );
            check_recovery(&disk.crash(n), &told, &format!("{fault:?} at {n}"));
        }
    }
}

#[test]
fn a_second_power_cut_during_recovery_costs_nothing_either() {
    let disk = FaultyDisk::default();
    disk.fail(40, Fault::Freezes);
    let told = script(&disk);
    disk.mend();
    for seed in 0..20 {
        let once = disk.crash(seed);
        for n in 1..40 {
            let again = once.crash(0);
            again.fail(n, Fault::Freezes);
            if let Ok(mut rig) = Rig::open(&again) {
                rig.commit(&[(0, 500, 100)]);
            }
            again.mend();
            let twice = again.crash(seed);
            let mut rig = Rig::open(&twice).unwrap();
            for (stream, recovered) in rig.take_all().into_iter().enumerate() {
                for id in &told.accepted[stream] {
                    assert!(recovered.contains(id) || told.acked[stream].contains(id));
                }
            }
        }
    }
}

#[test]
fn a_failed_sync_is_never_tried_again_and_the_next_group_gets_a_fresh_segment() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
    disk.fail(2, Fault::Fails); // One write, then the sync.
    assert_eq!(
        rig.commit(&[(0, 2, 100), (1, 3, 100)]),
        [Err(AppendError::Failed); 2]
    );
    assert_eq!(rig.segments().len(), 1);
    assert!(rig.spool.usage().failed);
    assert_eq!(rig.commit(&[(0, 4, 100)]), [Ok(())]);
    assert_eq!(rig.segments().len(), 2);
    assert!(!rig.spool.usage().failed);
    // Refused records are not delivered, in this run or the next.
    assert_eq!(rig.take_all(), [vec![1, 4], vec![]]);
    for seed in 0..50 {
        let mut after = Rig::open(&disk.crash(seed)).unwrap();
        assert_eq!(after.take_all(), [vec![1, 4], vec![]]);
    }
}

#[test]
fn the_word_that_bytes_are_void_outlives_the_bytes() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
    disk.fail(2, Fault::Fails);
    assert_eq!(rig.commit(&[(1, 2, 100)]), [Err(AppendError::Failed)]);
    // Three more segments of stream 1, all acked. The record of stream 0 is not.
    for id in [3, 4, 5] {
        assert_eq!(rig.commit(&[(1, id, 2000)]), [Ok(())]);
    }
    assert_eq!(ids_of(&mut rig, 1), [3, 4, 5]);
    rig.spool.ack(1, u64::MAX);
    rig.committer.tick();
    for seed in 0..20 {
        let mut after = Rig::open(&disk.crash(seed)).unwrap();
        let found = after.take_all();
        assert_eq!(found[0], [1]);
        assert!(!found[1].contains(&2), "void bytes came back: {found:?}");
    }
    // Once the segment with the discarded tail is gone, so is the one that guarded it.
    rig.take(0, 1);
    rig.spool.ack(0, u64::MAX);
    rig.committer.tick();
    assert_eq!(rig.segments().len(), 1);
    // The discarded tail does not come back without its guard either.
    for seed in 0..100 {
        let mut after = Rig::open(&disk.crash(seed)).unwrap();
        assert!(!after.take_all()[1].contains(&2));
    }
}

#[test]
fn a_disk_that_stays_broken_refuses_for_as_long_and_not_longer() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.commit(&[(0, 1, 100)]), [Ok(())]);
    disk.fail(1, Fault::Freezes);
    for id in 2..6 {
        assert_eq!(rig.commit(&[(0, id, 100)]), [Err(AppendError::Failed)]);
        rig.committer.tick();
        assert_eq!(rig.spool.has_room(10), Err(AppendError::Failed));
    }
    disk.mend();
    rig.committer.tick();
    assert_eq!(rig.spool.has_room(10), Ok(()));
    assert_eq!(rig.commit(&[(0, 6, 100)]), [Ok(())]);
    assert_eq!(rig.take_all(), [vec![1, 6], vec![]]);
}

fn ids_of(rig: &mut Rig, stream: usize) -> Vec<u64> {
    super::rig::ids(&rig.take(stream, usize::MAX))
}
