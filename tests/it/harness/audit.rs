//! Compares what the tables hold with what senders were told: one half of the delivery tests'
//! oracle. `traffic` is the other half.
//!
//! Knows what the service promises, not how it works. Uses one byte of memory for each event
//! number.

use futures_util::StreamExt as _;
use std::pin::pin;

use super::bodies::{BODY_EVENTS, number_of};
use super::database::Database;
use super::traffic::{Sent, Told};

/// How often each event number is stored.
#[derive(Debug)]
pub struct Stored {
    counts: Vec<u8>,
    /// Stored ids that do not belong to the test's numbers.
    pub foreign: u64,
}

/// Differences between what was promised and what is stored, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Events that were acknowledged as durable or committed.
    pub acknowledged: u64,
    /// Of those, events that are neither in the table nor in quarantine.
    pub missing: u64,
    /// Events that are stored more than once.
    pub twice: u64,
    /// Events that are stored though they were never sent, or though each answer to their body
    /// was a refusal.
    pub uncalled_for: u64,
    /// Bodies without an acknowledgement of durability that are stored in part.
    pub torn: u64,
    /// Events in the wrong place: poisoned ones in the table, or sound ones in quarantine.
    pub misplaced: u64,
}

impl Stored {
    /// Reads all event ids of a table or a subquery.
    pub async fn read(database: &Database, from: &str, numbers: u64) -> Self {
        let client = database.connect().await;
        let sql = format!("COPY (SELECT event_id FROM {from}) TO STDOUT (FORMAT binary)");
        let mut stream = pin!(client.copy_out(&sql).await.unwrap());
        let mut stored = Self {
            counts: vec![0; usize::try_from(numbers).unwrap()],
            foreign: 0,
        };
        // Bytes that are not parsed yet: a header of 19 bytes, then rows of one field.
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

    /// Number of distinct events that are stored.
    pub fn events(&self) -> u64 {
        self.counts.iter().filter(|&&count| count > 0).count() as u64
    }
}

impl Audit {
    /// Compares what the senders were told with what is stored.
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

    /// Whether all promises were kept.
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
