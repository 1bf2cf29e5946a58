//! The other half of the delivery tests' oracle: what the tables hold.
//!
//! Knows how the service promises, not how it works: compares what senders
//! were told with the ids that are stored. Memory is a byte for each number.

use futures_util::StreamExt as _;
use std::pin::pin;

use super::bodies::{BODY_EVENTS, number_of};
use super::database::Database;
use super::traffic::{Sent, Told};

/// How often each number is stored.
#[derive(Debug)]
pub struct Stored {
    counts: Vec<u8>,
    /// Ids that nobody sent.
    pub foreign: u64,
}

/// Differences between what was promised and what is there, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Events that were acknowledged as durable or committed.
    pub acknowledged: u64,
    /// Of those, events that are neither stored nor, if poisoned, in quarantine.
    pub missing: u64,
    /// Events that are there more than once.
    pub twice: u64,
    /// Events that are there though no one sent them, or the only answers to
    /// their bodies were refusals.
    pub uncalled_for: u64,
    /// Bodies of unknown fate of which a part is there.
    pub torn: u64,
    /// Events that are on the wrong side: poisoned and in the table, or sound
    /// and in quarantine.
    pub misplaced: u64,
}

impl Stored {
    /// Reads all event ids of a table, or of what a query gives.
    pub async fn read(database: &Database, from: &str, numbers: u64) -> Self {
        let client = database.connect().await;
        let sql = format!("COPY (SELECT event_id FROM {from}) TO STDOUT (FORMAT binary)");
        let mut stream = pin!(client.copy_out(&sql).await.unwrap());
        let mut stored = Self {
            counts: vec![0; usize::try_from(numbers).unwrap()],
            foreign: 0,
        };
        // What was not taken apart yet: the header, then rows of one field.
        let (mut rest, mut skip) = (Vec::new(), 19);
        while let Some(chunk) = stream.next().await {
            rest.extend_from_slice(&chunk.unwrap());
            let mut at = std::mem::take(&mut skip);
            while let Some(row) = rest.get(at..at + 22) {
                assert_eq!(row[..6], [0, 1, 0, 0, 0, 16], "a row of one uuid");
                stored.count(row[6..].try_into().unwrap());
                at += 22;
            }
            rest.drain(..at);
        }
        assert_eq!(rest, [0xff, 0xff], "the end of a COPY");
        stored
    }

    fn count(&mut self, id: &[u8; 16]) {
        let number = number_of(id).and_then(|number| usize::try_from(number).ok());
        match number.and_then(|number| self.counts.get_mut(number)) {
            Some(count) => *count = count.saturating_add(1),
            None => self.foreign += 1,
        }
    }

    fn of(&self, number: u64) -> u8 {
        let at = usize::try_from(number).unwrap();
        self.counts.get(at).copied().unwrap_or(0)
    }

    /// Events that are there.
    pub fn events(&self) -> u64 {
        self.counts.iter().filter(|&&count| count > 0).count() as u64
    }
}

impl Audit {
    /// Compares what senders were told with what is there.
    pub fn of(all: &[&Sent], stored: &Stored, quarantine: Option<&Stored>) -> Self {
        let set_aside = |number| quarantine.map_or(0, |quarantine| quarantine.of(number));
        let there = |number| u64::from(stored.of(number)) + u64::from(set_aside(number));
        let mut audit = Self::default();
        let mut called_for = vec![false; stored.counts.len()];
        for sent in all {
            for (body, &told) in (sent.plan.first..).zip(&sent.told) {
                if told <= Told::Refused {
                    continue;
                }
                let mut here = 0;
                for at in 0..BODY_EVENTS {
                    let number = sent.plan.mix.number(body, at);
                    called_for[usize::try_from(number).unwrap()] = true;
                    here += u64::from(there(number) > 0);
                    if there(number) > 0 {
                        let poisoned = sent.plan.mix.is_poisoned(number);
                        audit.misplaced += u64::from(poisoned != (set_aside(number) > 0));
                    }
                }
                match told {
                    Told::Durable | Told::Committed => {
                        audit.acknowledged += BODY_EVENTS;
                        audit.missing += BODY_EVENTS - here;
                    }
                    _ if sent.plan.mix == super::Mix::Clean => {
                        audit.torn += u64::from(here != 0 && here != BODY_EVENTS);
                    }
                    _ => {}
                }
            }
        }
        audit.uncalled_for = stored.foreign;
        for (number, called_for) in (0..).zip(called_for) {
            audit.twice += u64::from(there(number) > 1);
            audit.uncalled_for += u64::from(!called_for && there(number) > 0);
        }
        audit
    }

    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        let Self {
            acknowledged: _,
            missing,
            twice,
            uncalled_for,
            torn,
            misplaced,
        } = *self;
        missing + twice + uncalled_for + torn + misplaced == 0
    }
}
