//! Counts and latencies of one pass.
//!
//! Each connection keeps its own tally, so that counting needs no lock; they are
//! added up at the end. Every event that was posted is in exactly one of
//! `accepted`, `rejected`, `refused`, `unknown`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::answer::Answer;
use crate::generate::{Body, Kind};
use crate::service::Ack;

/// Latencies up to here are told apart; longer ones count as this.
const LATENCY_US_MAX: u64 = 600_000_000;
const ERRORS_MAX: usize = 5;

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// An answer promised to store them.
    pub accepted: u64,
    /// Of these, in answers that say `committed`.
    #[serde(skip)]
    pub accepted_committed: u64,
    pub committed: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub rejected: u64,
    pub refused: u64,
    pub unknown: u64,
}

/// An answer that was not what it should be.
#[derive(Clone, Debug)]
pub struct Odd {
    pub body: u32,
    /// The places of the events that it rejects.
    pub rejected: Vec<u32>,
    pub why: String,
}

/// Times in microseconds.
#[derive(Clone, Debug)]
pub struct Times(pub Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits up to ten minutes"))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By table and format.
    pub counts: BTreeMap<Kind, Counts>,
    /// Bodies by the level that their answers reached.
    pub acks: BTreeMap<&'static str, u64>,
    /// Refused attempts by status and code, those that were retried among them.
    pub refusals: BTreeMap<(u16, String), u64>,
    pub retries: u64,
    pub reconnects: u64,
    pub bytes: u64,
    pub bodies: u64,
    /// From due (open loop) or sent (closed loop) to the answer.
    pub latency: Times,
    /// Open loop: from due to sent; the generator's own lateness, and that of busy connections.
    pub lateness: Times,
    /// Bodies that left: some of them may be stored.
    pub posted: Vec<u32>,
    /// Bodies of which an answer accepted all valid events.
    pub accepted: Vec<u32>,
    /// Answers that were not what they should be.
    pub odd: Vec<Odd>,
    /// The first few things that went wrong.
    pub errors: Vec<String>,
    /// From the first body's departure to the last one's answer.
    pub took: Duration,
    /// Not all bodies were posted.
    pub unfinished: bool,
    /// Some bodies were made while the clock ran.
    pub made_late: bool,
}

impl Tally {
    pub fn answered(&mut self, kind: Kind, body: &Body, answer: &Answer, latency: Duration) {
        match answer.complaint(body) {
            None => self.accepted.push(body.number),
            Some(why) => self.odd.push(Odd {
                body: body.number,
                rejected: answer.rejected.iter().map(|told| told.index).collect(),
                why,
            }),
        }
        let counts = self.counts.entry(kind).or_default();
        counts.accepted += u64::from(answer.accepted);
        counts.rejected += length(&answer.rejected);
        if answer.ack == Some(Ack::Committed) {
            counts.accepted_committed += u64::from(answer.accepted);
            counts.committed += u64::from(answer.committed.unwrap_or(0));
            counts.duplicates += u64::from(answer.duplicates.unwrap_or(0));
            counts.quarantined += length(&answer.quarantined);
        }
        let ack = answer.ack.map_or("none", Ack::as_str);
        *self.acks.entry(ack).or_default() += 1;
        self.bodies += 1;
        self.latency.0.saturating_record(micros(latency));
    }

    /// A body was given up: it was refused, or what became of it is unknown.
    pub fn given_up(&mut self, kind: Kind, body: &Body, is_refused: bool) {
        let counts = self.counts.entry(kind).or_default();
        let count = if is_refused {
            &mut counts.refused
        } else {
            &mut counts.unknown
        };
        *count += u64::from(body.events);
        self.bodies += 1;
    }

    pub fn refusal(&mut self, status: u16, code: String) {
        *self.refusals.entry((status, code)).or_default() += 1;
    }

    pub fn late(&mut self, by: Duration) {
        self.lateness.0.saturating_record(micros(by));
    }

    pub fn error(&mut self, text: String) {
        if self.errors.len() < ERRORS_MAX && !self.errors.contains(&text) {
            self.errors.push(text);
        }
    }

    pub fn add(&mut self, other: Tally) {
        for (kind, counts) in other.counts {
            self.counts.entry(kind).or_default().add(&counts);
        }
        add_each(&mut self.acks, other.acks);
        add_each(&mut self.refusals, other.refusals);
        self.unfinished |= other.unfinished;
        self.retries += other.retries;
        self.reconnects += other.reconnects;
        self.bytes += other.bytes;
        self.bodies += other.bodies;
        self.posted.extend(other.posted);
        self.accepted.extend(other.accepted);
        self.odd.extend(other.odd);
        for (mine, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.lateness, &other.lateness),
        ] {
            mine.0
                .add(&theirs.0)
                .expect("all histograms have the same bounds");
        }
        for error in other.errors {
            self.error(error);
        }
    }

    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.counts.values() {
            total.add(counts);
        }
        total
    }
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.accepted += other.accepted;
        self.accepted_committed += other.accepted_committed;
        self.committed += other.committed;
        self.duplicates += other.duplicates;
        self.quarantined += other.quarantined;
        self.rejected += other.rejected;
        self.refused += other.refused;
        self.unknown += other.unknown;
    }

    /// Events that may or may not be stored, for all that the answers say.
    pub fn undecided(&self) -> u64 {
        self.accepted - self.accepted_committed + self.unknown
    }
}

/// Adds counts by their names.
fn add_each<K: Ord>(sums: &mut BTreeMap<K, u64>, counts: BTreeMap<K, u64>) {
    for (key, n) in counts {
        *sums.entry(key).or_default() += n;
    }
}

fn length<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).expect("memory has fewer than 2^64 of anything")
}

/// Microseconds, rounded up: nothing takes no time.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Told;
    use crate::service::Table;

    #[test]
    fn every_answer_but_the_one_that_is_due_is_kept_with_a_reason() {
        let body = Body {
            number: 1,
            bytes: bytes::Bytes::new(),
            events: 4,
            events_before: 0,
            rejects: Box::new([(2, "missing_field")]),
        };
        let cases: [(u32, &[(u32, &str)]); 6] = [
            (3, &[(2, "missing_field")]),
            (4, &[]),
            (3, &[(1, "missing_field")]),
            (3, &[(2, "invalid_type")]),
            (2, &[(2, "missing_field"), (3, "missing_field")]),
            (2, &[(2, "missing_field")]),
        ];
        let mut tally = Tally::default();
        for (accepted, rejected) in cases {
            let told = |&(index, code): &(u32, &str)| Told {
                index,
                code: code.to_owned(),
                message: String::new(),
            };
            let answer = Answer {
                accepted,
                rejected: rejected.iter().map(told).collect(),
                ..Answer::default()
            };
            tally.answered((Table::Exposures, 0), &body, &answer, Duration::MAX);
        }
        assert_eq!((tally.accepted.len(), tally.odd.len()), (1, 5));
        assert!(tally.latency.0.max() >= LATENCY_US_MAX);
    }
}
