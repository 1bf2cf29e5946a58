//! Lanes that go to disk and catch up, and what is delivered with their records.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::deliver::reader::LaneReader;
use super::super::disk::faulty::FaultyDisk;
use super::super::recover::open::open_on;
use super::super::settings::Settings;
use super::rig::{Rig, id_of, ids, items, payload, settings};
use crate::log::read::Next;
use crate::log::record::Delivered;
use crate::log::record::{Record, Turn};

#[test]
fn a_lane_that_is_full_falls_behind_alone_and_comes_back_through_the_disk() {
    let mut rig = Rig::open(&FaultyDisk::default()).unwrap();
    for id in 1..=20 {
        rig.commit(&[(0, id, 100)]);
    }
    rig.commit(&[(1, 21, 100)]);
    assert!(rig.readers[0].is_on_disk());
    assert!(!rig.readers[1].is_on_disk());
    // Three from memory, with their `memory`; the rest from disk, without.
    let taken = rig.take(0, usize::MAX);
    assert_eq!(ids(&taken), (1..=20).collect::<Vec<_>>());
    let with_memory = taken.iter().filter(|frame| frame.memory.is_some()).count();
    assert_eq!(with_memory, 3);
    assert!(!rig.readers[0].is_on_disk());
    rig.commit(&[(0, 22, 100)]);
    assert!(rig.take(0, 1)[0].memory.is_some());
}

#[test]
fn what_is_delivered_and_not_acked_is_counted_up_to_a_sequence() {
    let mut rig = Rig::open(&FaultyDisk::default()).unwrap();
    for id in 1..=9 {
        rig.commit(&[(0, id, 100), (1, 10 * id, 100)]);
    }
    // From memory, then from disk.
    let taken = rig.take(0, 6);
    assert!(taken[0].memory.is_some() && taken[5].memory.is_none());
    let [third, last] = [taken[2].sequence, taken[5].sequence];
    let delivered = |sequence| rig.spool.delivered(0, sequence);
    assert_eq!((delivered(third), delivered(last)), (3, 6));
    assert_eq!(delivered(u64::MAX), taken.len());
    assert_eq!(rig.spool.delivered(1, u64::MAX), 0);
    rig.spool.ack(0, third);
    assert_eq!((delivered(third), delivered(last)), (0, 3));
}

#[test]
fn reading_from_disk_too_early_gives_nothing_and_disturbs_nothing() {
    let mut rig = Rig::open(&FaultyDisk::default()).unwrap();
    for id in 1..=9 {
        rig.commit(&[(0, id, 100)]);
    }
    assert!(rig.readers[0].is_on_disk());
    assert!(rig.readers[0].read_from_disk(1 << 20).unwrap().is_empty());
    assert_eq!(rig.take_all()[0], (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_lane_has_a_bound_on_bytes_too_and_one_frame_always_fits() {
    let settings = Settings {
        lane_bytes_max: 500,
        ..settings()
    };
    let mut rig = Rig::open_with(&FaultyDisk::default(), settings).unwrap();
    rig.commit(&[(0, 1, 2000)]);
    assert!(!rig.readers[0].is_on_disk());
    rig.commit(&[(0, 2, 10)]);
    assert!(rig.readers[0].is_on_disk());
    assert_eq!(rig.take_all()[0], [1, 2]);
}

struct Reservation(Arc<AtomicUsize>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn memory_is_given_back_when_a_frame_leaves_it_and_who_waits_is_found_again() {
    let reserved = Arc::new(AtomicUsize::new(0));
    let (_, entries) = flume::bounded(1);
    let disk = Arc::new(FaultyDisk::default());
    let mut opened = open_on::<Reservation, u64>(disk, None, settings(), entries).unwrap();
    let mut results = Vec::new();
    for id in 1..=10 {
        reserved.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = oneshot::channel();
        results.push(receiver);
        opened.committer.commit(&mut vec![Record {
            stream: 0,
            items: 1,
            payload: payload(id, 50),
            turn: Turn::default(),
            durable: None,
            memory: Reservation(Arc::clone(&reserved)),
            result: Some(sender),
        }]);
    }
    assert_eq!(reserved.load(Ordering::SeqCst), 3);
    let reader = &mut opened.readers[0];
    let mut taken = 0;
    loop {
        let frames = match reader.try_next() {
            Next::Record(frame) => vec![frame],
            Next::Fetch => reader.read_from_disk(1 << 20).unwrap(),
            Next::Empty | Next::Ended => break,
        };
        for frame in frames {
            taken += 1;
            frame.result.unwrap().send(id_of(&frame.payload)).unwrap();
        }
    }
    assert_eq!(taken, 10);
    assert_eq!(reserved.load(Ordering::SeqCst), 0);
    let told: Vec<u64> = results
        .iter_mut()
        .map(|result| result.try_recv().unwrap())
        .collect();
    assert_eq!(told, (1..=10).collect::<Vec<_>>());
}

#[test]
fn what_the_database_remembers_as_settled_is_not_given_again() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    for id in 1..=20 {
        rig.commit(&[(u8::try_from(id % 2).unwrap(), id, 300)]);
    }
    let crashed = disk.crash(0);
    // Sequences equal the ids here. The watermark lies within a segment, at its end, or after
    // everything.
    for watermark in 0..=20 {
        let disk = crashed.crash(0);
        let mut rig = Rig::open(&disk).unwrap();
        assert!(rig.readers[0].skip_to(watermark));
        let expected: Vec<u64> = (1..=20)
            .filter(|id| id % 2 == 0 && *id > watermark)
            .collect();
        let taken = rig.take_all();
        assert_eq!(taken[0], expected, "watermark {watermark}");
        assert_eq!(taken[1].len(), 10);
        let fill = rig.spool.usage();
        assert_eq!(fill.frames[0], expected.len() as u64);
        let left: u64 = expected.iter().map(|&id| u64::from(items(id))).sum();
        assert_eq!((fill.items[0], fill.lost), (left, 0));
        rig.spool.ack(1, u64::MAX);
        rig.committer.tick();
        if watermark == 20 {
            assert_eq!(rig.segments().len(), 1);
        }
    }
}

#[test]
fn a_watermark_from_another_time_skips_nothing_and_new_frames_are_numbered_beyond_it() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    rig.commit(&[(0, 1, 100)]);
    let mut rig = Rig::open(&disk.crash(0)).unwrap();
    rig.commit(&[(0, 2, 100)]);
    assert!(!rig.readers[0].skip_to(1000));
    rig.readers[0].number_beyond(1000);
    rig.commit(&[(0, 3, 100)]);
    let taken = rig.take(0, usize::MAX);
    assert_eq!(ids(&taken), [1, 2, 3]);
    assert_eq!(taken[2].sequence, 1001);
}

#[test]
fn frames_of_streams_that_are_no_longer_configured_are_still_given() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    rig.commit(&[(1, 1, 100)]);
    let fewer = Settings {
        streams: vec![0],
        ..settings()
    };
    let mut rig = Rig::open_with(&disk.crash(0), fewer).unwrap();
    assert_eq!(rig.take_all(), [vec![], vec![1]]);
}

#[test]
fn nothing_can_be_retired_before_it_was_given() {
    let mut rig = Rig::open(&FaultyDisk::default()).unwrap();
    for id in 1..=9 {
        rig.commit(&[(0, id, 1000)]);
    }
    rig.take(0, 2);
    rig.spool.ack(0, u64::MAX);
    rig.committer.tick();
    assert_eq!(rig.spool.usage().frames[0], 7);
    assert_eq!(rig.take_all()[0], (3..=9).collect::<Vec<_>>());
}

/// Takes records as a writer does, with pauses now and then, and acks them in batches.
async fn write(
    mut reader: LaneReader<(), u64>,
    spool: super::super::shared::Spool,
    pauses: bool,
) -> Vec<u64> {
    let mut seen: Vec<u64> = Vec::new();
    let mut take = |frame: Delivered<Option<()>, u64>| {
        seen.push(id_of(&frame.payload));
        frame.sequence
    };
    let stream = reader.stream();
    for round in 0_u64.. {
        let last = match reader.try_next() {
            Next::Record(frame) => Some(take(frame)),
            Next::Fetch => reader
                .read_from_disk(2000)
                .unwrap()
                .into_iter()
                .map(&mut take)
                .last(),
            Next::Empty => {
                // Cancelled at times, as by a timer in a select.
                let patience = Duration::from_micros(round % 50);
                drop(tokio::time::timeout(patience, reader.wait()).await);
                None
            }
            Next::Ended => break,
        };
        if let Some(last) = last
            && last % 5 == 0
        {
            spool.ack(stream, last);
        }
        if pauses && round % 97 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    spool.ack(stream, u64::MAX);
    seen
}

#[test]
fn while_lanes_fall_behind_and_catch_up_nothing_is_given_twice_or_skipped() {
    const FRAMES: u64 = 6000;
    let (sender, entries) = flume::bounded(64);
    let disk = FaultyDisk::default();
    let settings = Settings {
        lane_frames_max: 8,
        segment_bytes: 40_000,
        bytes_max: 1 << 30,
        ..settings()
    };
    let opened = open_on(Arc::new(disk.clone()), None, settings, entries).unwrap();
    let spool = opened.spool.clone();
    let committer = opened.committer;
    let committing = std::thread::spawn(move || committer.run());
    let intake = std::thread::spawn(move || {
        for id in 1..=FRAMES {
            let frame = Record {
                stream: u8::try_from(id % 2).unwrap(),
                items: items(id),
                payload: payload(id, usize::try_from(id % 130).unwrap()),
                turn: Turn::default(),
                durable: None,
                memory: (),
                result: None,
            };
            sender.send(frame).unwrap();
            // Bursts with pauses give the lanes a chance to catch up.
            if id % 500 == 0 {
                std::thread::sleep(Duration::from_millis(15));
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let mut readers = opened.readers.into_iter();
    let even = runtime.spawn(write(readers.next().unwrap(), spool.clone(), true));
    let odd = runtime.spawn(write(readers.next().unwrap(), spool.clone(), false));
    let (even, odd) = runtime.block_on(async { (even.await.unwrap(), odd.await.unwrap()) });
    intake.join().unwrap();
    committing.join().unwrap();
    assert_eq!(
        even,
        (1..=FRAMES).filter(|id| id % 2 == 0).collect::<Vec<_>>()
    );
    assert_eq!(
        odd,
        (1..=FRAMES).filter(|id| id % 2 == 1).collect::<Vec<_>>()
    );
    spool.reclaim();
    let fill = spool.usage();
    assert_eq!((fill.segments, fill.lost, fill.refused), (1, 0, 0));
    assert_eq!((fill.frames, fill.items), ([0; 24], [0; 24]));
    let accepted: u64 = (1..=FRAMES).map(|id| u64::from(items(id))).sum();
    assert_eq!(fill.accepted.iter().sum::<u64>(), accepted);
}

#[test]
fn an_empty_payload_is_a_frame_like_any_other() {
    let (_, entries) = flume::bounded(1);
    let disk = FaultyDisk::default();
    let mut opened = open_on::<(), u64>(Arc::new(disk.clone()), None, settings(), entries).unwrap();
    opened.committer.commit(&mut vec![Record {
        stream: 0,
        items: 0,
        payload: Bytes::new(),
        turn: Turn::default(),
        durable: None,
        memory: (),
        result: None,
    }]);
    assert!(
        matches!(opened.readers[0].try_next(), Next::Record(frame) if frame.payload.is_empty())
    );
    let mut rig = Rig::open(&disk.crash(0)).unwrap();
    assert_eq!(rig.take(0, 1).len(), 1);
}
