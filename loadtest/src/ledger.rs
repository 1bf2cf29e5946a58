//! What was promised for each body.
//!
//! Keeps one invariant: a slot counts as promised only if an answer accepted it.
//! One byte a body, as long as the answers are what they should be.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::answer::Answer;
use crate::generate::body::Body;

/// Posted, and the answer is not known (yet).
const POSTED: u8 = 1;
/// All its valid events were accepted.
const ACCEPTED: u8 = 2;
/// An answer was not what it should be: see `odd`.
const ODD: u8 = 4;

/// How many odd answers are remembered in detail.
const ODD_MAX: usize = 10_000;

/// What was promised, body by body.
#[derive(Debug)]
pub(crate) struct Ledger {
    bodies: Vec<AtomicU8>,
    odd: Mutex<Vec<Odd>>,
}

/// An answer that was not what it should be.
#[derive(Clone, Debug)]
pub(crate) struct Odd {
    /// The body that it answers.
    pub(crate) body: u32,
    /// The places of the events that it rejects.
    pub(crate) rejected: Vec<u32>,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// What is known of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// It was sent at least once.
    pub(crate) posted: bool,
    /// An answer accepted all its valid events.
    pub(crate) accepted: bool,
    /// An answer was odd.
    pub(crate) odd: bool,
}

impl Ledger {
    /// For so many bodies.
    pub(crate) fn new(bodies: u32) -> Self {
        Self {
            bodies: (0..bodies).map(|_| AtomicU8::new(0)).collect(),
            odd: Mutex::default(),
        }
    }

    /// Before a body leaves: from here on some of it may be stored.
    pub(crate) fn post(&self, body: u32) {
        self.mark(body, POSTED);
    }

    /// Enters an answer; says whether it was what it should be.
    pub(crate) fn answer(&self, body: &Body, answer: &Answer) -> bool {
        let why = complaint(body, answer);
        let Some(why) = why else {
            self.mark(body.number, ACCEPTED);
            return true;
        };
        self.mark(body.number, ODD);
        let mut odd = self.odd.lock().expect("nobody panics with the lock");
        if odd.len() < ODD_MAX {
            odd.push(Odd {
                body: body.number,
                rejected: answer.rejected.iter().map(|r| r.index).collect(),
                why,
            });
        }
        false
    }

    /// What is known of a body.
    pub(crate) fn entry(&self, body: u32) -> Entry {
        let state = self.bodies[body as usize].load(Ordering::Relaxed);
        Entry {
            posted: state & POSTED != 0,
            accepted: state & ACCEPTED != 0,
            odd: state & ODD != 0,
        }
    }

    /// The odd answers.
    pub(crate) fn odd(&self) -> Vec<Odd> {
        self.odd
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    fn mark(&self, body: u32, bit: u8) {
        self.bodies[body as usize].fetch_or(bit, Ordering::Relaxed);
    }
}

/// What is wrong with an answer, given what was posted.
fn complaint(body: &Body, answer: &Answer) -> Option<String> {
    let expected = body.events - u32::try_from(body.rejects.len()).expect("fewer than events");
    let differs = |(expected, got): &(&(u32, &'static str), &crate::answer::Rejected)| {
        expected.0 != got.index || expected.1 != got.code
    };
    if let Some((expected, got)) = body.rejects.iter().zip(&answer.rejected).find(differs) {
        return Some(format!(
            "event {} should be rejected with {}, and event {} was, with {}",
            expected.0, expected.1, got.index, got.code
        ));
    }
    if let Some(got) = answer.rejected.get(body.rejects.len()) {
        return Some(format!(
            "event {} should be accepted, and was rejected with {}",
            got.index, got.code
        ));
    }
    if let Some(missed) = body.rejects.get(answer.rejected.len()) {
        return Some(format!(
            "event {} should be rejected with {}, and was not",
            missed.0, missed.1
        ));
    }
    if answer.accepted != expected {
        return Some(format!(
            "{} events were accepted of {expected} valid ones",
            answer.accepted
        ));
    }
    (!answer.quarantined.is_empty()).then(|| {
        format!(
            "{} events were quarantined; the first says {}",
            answer.quarantined.len(),
            answer.quarantined[0]
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Rejected;

    fn body() -> Body {
        Body {
            number: 1,
            bytes: bytes::Bytes::new(),
            events: 4,
            events_before: 0,
            rejects: Box::new([(2, "missing_field")]),
        }
    }

    fn answer(accepted: u32, rejected: &[(u32, &str)]) -> Answer {
        Answer {
            accepted,
            rejected: rejected
                .iter()
                .map(|&(index, code)| Rejected {
                    index,
                    code: code.to_owned(),
                })
                .collect(),
            ..Answer::default()
        }
    }

    #[test]
    fn the_answer_that_is_due_is_entered_as_accepted() {
        let ledger = Ledger::new(2);
        ledger.post(1);
        assert!(ledger.answer(&body(), &answer(3, &[(2, "missing_field")])));
        let entry = ledger.entry(1);
        assert!(entry.posted && entry.accepted && !entry.odd);
        assert!(!ledger.entry(0).posted);
    }

    #[test]
    fn every_other_answer_is_remembered_with_a_reason() {
        for wrong in [
            answer(4, &[]),
            answer(3, &[(1, "missing_field")]),
            answer(3, &[(2, "invalid_type")]),
            answer(2, &[(2, "missing_field"), (3, "missing_field")]),
            answer(2, &[(2, "missing_field")]),
        ] {
            let ledger = Ledger::new(2);
            assert!(!ledger.answer(&body(), &wrong));
            assert!(ledger.entry(1).odd);
            assert_eq!(ledger.odd().len(), 1);
        }
    }
}
