//! Random runs of a spool, compared with a small model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::disk::faulty::{Fault, FaultyDisk};
use super::rig::{Rig, id_of, items};
use crate::log::record::Delivered;

#[derive(Clone, Debug)]
enum Step {
    /// Commits records of these streams and sizes as one group.
    Commit(Vec<(u8, usize)>),
    /// A writer of this stream takes this many records.
    Take(usize, usize),
    /// A writer of this stream acks this many of those that it holds.
    Retire(usize, usize),
    Tick,
    /// The n-th operation from now goes wrong.
    Fault(u64, Fault),
    /// The power fails, with this seed. The flag: the database kept each stream's watermark.
    Crash(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8 => 0..400_usize, 1 => 1400..3000_usize];
    let fault = prop_oneof![
        Just(Fault::Fails),
        Just(Fault::NoSpace),
        Just(Fault::Short),
        Just(Fault::Interrupted),
    ];
    prop_oneof![
        6 => prop::collection::vec((0..2_u8, size), 1..6).prop_map(Step::Commit),
        4 => (0..2_usize, 1..12_usize).prop_map(|(stream, n)| Step::Take(stream, n)),
        3 => (0..2_usize, 1..12_usize).prop_map(|(stream, n)| Step::Retire(stream, n)),
        1 => Just(Step::Tick),
        1 => (1..12_u64, fault).prop_map(|(n, fault)| Step::Fault(n, fault)),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(seed, skip)| Step::Crash(seed, skip)),
    ]
}

/// The expected state of one stream.
#[derive(Debug, Default)]
struct Stream {
    /// Records that were accepted and are not known to be acked.
    promised: BTreeSet<u64>,
    /// Records that may come back after a crash, because they were refused or are acked.
    possible: BTreeSet<u64>,
    /// Records that a writer holds and has not acked: sequence and id.
    held: Vec<(u64, u64)>,
    /// The last sequence that a writer acked.
    watermark: u64,
    /// The last id that was delivered in this run.
    last_given: u64,
    /// Items of all records that were accepted, or came back.
    accepted: u64,
    /// Items of all acked records.
    acked_items: u64,
}

struct World {
    rig: Rig,
    streams: [Stream; 2],
    next_id: u64,
    /// The sequence that each record was delivered with, in any run.
    sequences: BTreeMap<u64, u64>,
    /// Every run so far skipped the acked records, so none was acked twice.
    is_exact: bool,
}

impl World {
    fn commit(&mut self, group: &[(u8, usize)]) {
        let group: Vec<_> = group
            .iter()
            .map(|&(stream, bytes)| {
                self.next_id += 1;
                (stream, self.next_id, bytes)
            })
            .collect();
        for (&(stream, id, _), answer) in group.iter().zip(self.rig.commit(&group)) {
            let stream = &mut self.streams[usize::from(stream)];
            match answer {
                Ok(()) => {
                    stream.promised.insert(id);
                    stream.accepted += u64::from(items(id));
                }
                Err(_) => drop(stream.possible.insert(id)),
            }
        }
    }

    fn given(&mut self, at: usize, frames: &[Delivered<Option<()>, u64>]) {
        let stream = &mut self.streams[at];
        for frame in frames {
            let id = id_of(&frame.payload);
            assert!(id > stream.last_given, "{id} again, or out of order");
            assert_eq!(frame.items, items(id));
            // No accepted record is skipped.
            let skipped = stream.promised.range(stream.last_given + 1..id).next();
            assert_eq!(skipped, None, "left out");
            assert!(stream.promised.contains(&id), "{id} was not to be given");
            let known = self.sequences.insert(id, frame.sequence);
            assert!(known.is_none_or(|known| known == frame.sequence));
            stream.last_given = id;
            stream.held.push((frame.sequence, id));
        }
    }

    fn take(&mut self, at: usize, frames: usize) {
        let taken = self.rig.take(at, frames);
        self.given(at, &taken);
    }

    fn ack(&mut self, at: usize, frames: usize) {
        let stream = &mut self.streams[at];
        let acked: Vec<_> = stream.held.drain(..frames.min(stream.held.len())).collect();
        if let Some(&(last, _)) = acked.last() {
            self.rig.spool.ack(u8::try_from(at).unwrap(), last);
            stream.watermark = last;
            for (_, id) in acked {
                stream.promised.remove(&id);
                stream.acked_items += u64::from(items(id));
                // Its segment may stay on disk longer.
                stream.possible.insert(id);
            }
        }
    }

    fn crash(&mut self, seed: u64, skip: bool) {
        self.is_exact &= skip;
        let disk = self.rig.disk.crash(seed);
        self.rig = Rig::open(&disk).unwrap();
        assert!(!self.rig.report.is_damaged(), "{:#?}", self.rig.report);
        // A copy of the disk shows what came back.
        let mut copy = Rig::open(&disk.crash(0)).unwrap();
        for (at, found) in copy.take_all().into_iter().enumerate() {
            let stream = &mut self.streams[at];
            let found: BTreeSet<u64> = found.into_iter().collect();
            let lost = stream.promised.difference(&found).next();
            assert_eq!(lost, None, "promised and lost");
            for &id in found.difference(&stream.promised) {
                assert!(stream.possible.contains(&id), "{id} from nowhere");
                if !self.sequences.contains_key(&id) {
                    stream.accepted += u64::from(items(id));
                }
            }
            // What is not there now never comes back.
            stream.possible.clear();
            stream.promised = found;
            stream.held.clear();
            stream.last_given = 0;
            if skip {
                self.rig.readers[at].skip_to(stream.watermark);
                if self.is_exact {
                    self.rig.readers[at].reconcile(stream.acked_items);
                }
                let (watermark, sequences) = (stream.watermark, &self.sequences);
                let acked = |id: &u64| sequences.get(id).is_some_and(|&at| at <= watermark);
                let (skipped, rest) = stream.promised.iter().partition(|id| acked(id));
                stream.promised = rest;
                stream.possible = skipped;
            }
        }
    }

    fn check(&self) {
        let fill = self.rig.spool.usage();
        for (at, stream) in self.streams.iter().enumerate() {
            assert_eq!(fill.accepted[at], stream.accepted, "stream {at}");
            // Records to be skipped count until they are.
            assert!(fill.frames[at] >= stream.promised.len() as u64);
        }
        assert_eq!(fill.lost, 0);
        let bytes: usize = self
            .rig
            .segments()
            .iter()
            .map(|name| self.rig.disk.content(name).unwrap().len())
            .sum();
        assert!(bytes as u64 <= fill.bytes_max);
    }
}

fn live(steps: &[Step]) {
    let mut world = World {
        rig: Rig::open(&FaultyDisk::default()).unwrap(),
        streams: Default::default(),
        next_id: 0,
        sequences: BTreeMap::new(),
        is_exact: true,
    };
    for step in steps {
        match step {
            Step::Commit(group) => world.commit(group),
            Step::Take(stream, frames) => {
                world.rig.disk.mend();
                world.take(*stream, *frames);
            }
            Step::Retire(stream, frames) => world.ack(*stream, *frames),
            Step::Tick => world.rig.committer.tick(),
            Step::Fault(n, fault) => world.rig.disk.fail(*n, *fault),
            Step::Crash(seed, skip) => world.crash(*seed, *skip),
        }
        world.check();
    }
    // At the end everything can be drained, and then nothing is left.
    world.rig.disk.mend();
    for stream in 0..2 {
        world.take(stream, usize::MAX);
        world.ack(stream, usize::MAX);
    }
    // The first tick may begin a segment, to see whether the disk works again.
    world.rig.committer.tick();
    world.rig.committer.tick();
    let fill = world.rig.spool.usage();
    assert_eq!((fill.frames, fill.items), ([0; 24], [0; 24]));
    assert!(world.rig.segments().len() <= 1);
    for stream in &world.streams {
        assert!(stream.promised.is_empty(), "never given: {stream:?}");
    }
}

proptest! {
    #[test]
    fn in_any_life_what_was_promised_comes_out_once_in_order_and_is_counted(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        live(&steps);
    }
}
