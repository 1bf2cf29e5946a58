//! Explores every interleaving of an appender and a reader.
//!
//! A step is what one of them does under the lane's mutex, or without it. Each reachable state
//! is visited once.

use std::collections::{HashSet, VecDeque};

use super::*;

const FRAMES: u64 = 6;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    lag: Lag,
    memory: VecDeque<u64>,
    room: usize,
    /// Records up to this are on disk; the last one may not be offered yet.
    synced: u64,
    offered: u64,
    reader: Reader,
    given: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    /// Calls `try_next`.
    Asks,
    /// Sleeps until something is in memory, or the end.
    Waits,
    /// Reads from disk: up to where it has read, and up to where it may.
    Reads {
        read_to: u64,
        limit: u64,
    },
    Ended,
}

fn position(sequence: u64) -> Position {
    Position {
        segment: 1,
        offset: sequence,
        sequence,
    }
}

impl World {
    fn give(&mut self, sequence: u64) {
        assert_eq!(sequence, self.given + 1, "skipped or given twice: {self:?}");
        self.given = sequence;
    }

    /// The appender syncs a record, or offers the one that it has synced.
    fn append(&self) -> Option<Self> {
        let mut next = self.clone();
        if self.synced == self.offered {
            if self.synced == FRAMES {
                return None;
            }
            next.synced += 1;
            return Some(next);
        }
        next.offered += 1;
        let (memory, sequence) = (&mut next.memory, next.offered);
        next.lag.offer(position(sequence), || {
            let room = memory.len() < self.room;
            if room {
                memory.push_back(sequence);
            }
            room
        });
        Some(next)
    }

    fn read(&self) -> Option<Self> {
        let mut next = self.clone();
        match self.reader {
            Reader::Ended => return None,
            Reader::Asks => match next.memory.pop_front() {
                Some(sequence) => next.give(sequence),
                None => match next.lag.on_disk_from() {
                    Some(from) => {
                        next.reader = Reader::Reads {
                            read_to: from.sequence - 1,
                            limit: next.lag.last(),
                        };
                    }
                    None if self.offered == FRAMES => next.reader = Reader::Ended,
                    None => next.reader = Reader::Waits,
                },
            },
            Reader::Waits => {
                if self.memory.is_empty() && self.offered < FRAMES {
                    return None;
                }
                next.reader = Reader::Asks;
            }
            Reader::Reads { read_to, limit } if read_to < limit => {
                assert!(read_to < self.synced, "read what is not there");
                next.give(read_to + 1);
                next.reader = Reader::Reads {
                    read_to: read_to + 1,
                    limit,
                };
            }
            Reader::Reads { read_to, .. } => {
                next.reader = match next.lag.catch_up(read_to) {
                    true => Reader::Asks,
                    false => Reader::Reads {
                        read_to,
                        limit: next.lag.last(),
                    },
                };
            }
        }
        Some(next)
    }
}

fn explore(start: World) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let next = [world.append(), world.read()];
        if next.iter().all(Option::is_none) {
            assert_eq!(world.reader, Reader::Ended, "stuck: {world:?}");
            assert_eq!(world.given, FRAMES, "ended too early: {world:?}");
        }
        open.extend(next.into_iter().flatten());
    }
    seen.len()
}

#[test]
fn in_every_interleaving_each_frame_is_given_once_in_order_and_nobody_waits_for_ever() {
    for room in 1..=3 {
        for found in 0..=3 {
            let lag = match found {
                0 => Lag::in_memory(),
                last => Lag::on_disk(position(1), last),
            };
            let states = explore(World {
                lag,
                memory: VecDeque::new(),
                room,
                synced: found,
                offered: found,
                reader: Reader::Asks,
                given: 0,
            });
            assert!(states > 20, "only {states} states");
        }
    }
}

#[test]
fn a_record_that_is_offered_twice_or_late_stops_the_program() {
    for late in [5, 4] {
        for mut lag in [Lag::in_memory(), Lag::on_disk(position(1), 3)] {
            lag.offer(position(5), || true);
            let offered = std::panic::catch_unwind(move || {
                lag.offer(position(late), || panic!("it is not let in"));
            });
            let panic = offered.unwrap_err();
            let message = panic.downcast_ref::<&str>();
            assert_eq!(message, Some(&"a record is offered twice, or out of order"));
        }
    }
}
