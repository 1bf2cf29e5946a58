//! Counts and latencies of one pass.
//!
//! Each connection keeps a tally of its own, so that counting needs no lock; they
//! are added up at the end. Every event that was posted is in exactly one of
//! `accepted`, `rejected`, `refused`, `unknown`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::answer::{Ack, Answer};
use crate::generate::settings::{Format, Table};

/// Latencies up to here are told apart; longer ones count as this.
const LATENCY_US_MAX: u64 = 600_000_000;
/// How many errors are kept as text.
const ERRORS_MAX: usize = 5;

/// Counts of one format in one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Events whose storing was promised.
    pub(crate) accepted: u64,
    /// Of these, in answers that say `committed`.
    pub(crate) accepted_committed: u64,
    /// Events that those answers call stored.
    pub(crate) committed: u64,
    /// Events that those answers call duplicates.
    pub(crate) duplicates: u64,
    /// Events that those answers call quarantined.
    pub(crate) quarantined: u64,
    /// Events that were found invalid.
    pub(crate) rejected: u64,
    /// Events of bodies that were refused whole.
    pub(crate) refused: u64,
    /// Events of bodies without an answer.
    pub(crate) unknown: u64,
}

/// Counts and latencies.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<(Table, Format), Counts>,
    /// Bodies by the level that their answers reached.
    pub(crate) acks: BTreeMap<&'static str, u64>,
    /// Refused attempts by status and code, those that were retried among them.
    pub(crate) refusals: BTreeMap<(u16, String), u64>,
    pub(crate) retries: u64,
    pub(crate) reconnects: u64,
    /// Bytes of all attempts.
    pub(crate) bytes: u64,
    pub(crate) bodies: u64,
    /// From due (open loop) or sent (closed loop) to the answer, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Open loop: from due to sent; the generator's own lateness, and that of busy connections.
    pub(crate) lateness: Histogram<u64>,
    /// Answers that were not what they should be.
    pub(crate) odd: u64,
    /// The first few things that went wrong.
    pub(crate) errors: Vec<String>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let histogram =
            || Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits up to ten minutes");
        Self {
            counts: BTreeMap::new(),
            acks: BTreeMap::new(),
            refusals: BTreeMap::new(),
            retries: 0,
            reconnects: 0,
            bytes: 0,
            bodies: 0,
            latency: histogram(),
            lateness: histogram(),
            odd: 0,
            errors: Vec::new(),
        }
    }

    /// An answered body.
    pub(crate) fn answered(&mut self, kind: (Table, Format), answer: &Answer, latency: Duration) {
        let counts = self.counts.entry(kind).or_default();
        counts.accepted += u64::from(answer.accepted);
        counts.rejected += length(&answer.rejected);
        if answer.ack == Some(Ack::Committed) {
            counts.accepted_committed += u64::from(answer.accepted);
            counts.committed += u64::from(answer.committed.unwrap_or(0));
            counts.duplicates += u64::from(answer.duplicates.unwrap_or(0));
            counts.quarantined += length(&answer.quarantined);
        }
        *self
            .acks
            .entry(answer.ack.map_or("none", Ack::as_str))
            .or_default() += 1;
        self.bodies += 1;
        self.latency.saturating_record(micros(latency));
    }

    /// A body that was refused for good.
    pub(crate) fn refused(&mut self, kind: (Table, Format), events: u32) {
        self.counts.entry(kind).or_default().refused += u64::from(events);
        self.bodies += 1;
    }

    /// A body without an answer.
    pub(crate) fn unknown(&mut self, kind: (Table, Format), events: u32) {
        self.counts.entry(kind).or_default().unknown += u64::from(events);
        self.bodies += 1;
    }

    /// One attempt that was refused.
    pub(crate) fn refusal(&mut self, status: u16, code: String) {
        *self.refusals.entry((status, code)).or_default() += 1;
    }

    /// How late a body left.
    pub(crate) fn late(&mut self, by: Duration) {
        self.lateness.saturating_record(micros(by));
    }

    /// Something that went wrong, for people.
    pub(crate) fn error(&mut self, text: String) {
        if self.errors.len() < ERRORS_MAX && !self.errors.contains(&text) {
            self.errors.push(text);
        }
    }

    /// Adds another connection's, or another pass's.
    pub(crate) fn add(&mut self, other: Tally) {
        for (kind, counts) in other.counts {
            self.counts.entry(kind).or_default().add(&counts);
        }
        for (ack, n) in other.acks {
            *self.acks.entry(ack).or_default() += n;
        }
        for (refusal, n) in other.refusals {
            *self.refusals.entry(refusal).or_default() += n;
        }
        self.retries += other.retries;
        self.reconnects += other.reconnects;
        self.bytes += other.bytes;
        self.bodies += other.bodies;
        self.odd += other.odd;
        // All histograms have the bounds above, so that every value fits.
        for (mine, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.lateness, &other.lateness),
        ] {
            mine.add(theirs).expect("the bounds are the same");
        }
        for error in other.errors {
            self.error(error);
        }
    }

    /// Everything, of all formats.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.counts.values() {
            total.add(counts);
        }
        total
    }
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.accepted += other.accepted;
        self.accepted_committed += other.accepted_committed;
        self.committed += other.committed;
        self.duplicates += other.duplicates;
        self.quarantined += other.quarantined;
        self.rejected += other.rejected;
        self.refused += other.refused;
        self.unknown += other.unknown;
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

    #[test]
    fn tallies_of_connections_add_up() {
        let kind = (Table::Exposures, Format::Native);
        let answer = Answer {
            ack: Some(Ack::Committed),
            accepted: 5,
            committed: Some(4),
            duplicates: Some(1),
            ..Answer::default()
        };
        let mut sum = Tally::new();
        for ms in [10, 20] {
            let mut one = Tally::new();
            one.answered(kind, &answer, Duration::from_millis(ms));
            one.refused(kind, 7);
            sum.add(one);
        }
        let total = sum.total();
        assert_eq!(
            (total.accepted, total.committed, total.duplicates),
            (10, 8, 2)
        );
        assert_eq!(total.refused, 14);
        assert_eq!(sum.latency.len(), 2);
        assert!(sum.latency.max() >= 20_000);
    }

    #[test]
    fn a_latency_beyond_the_scale_counts_as_the_longest() {
        let mut tally = Tally::new();
        let answer = Answer::default();
        let kind = (Table::Exposures, Format::Native);
        tally.answered(kind, &answer, Duration::from_secs(86_400));
        assert!(tally.latency.max() >= LATENCY_US_MAX);
    }
}
