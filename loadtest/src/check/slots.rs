//! One byte a slot: what was promised, and what was found.

use crate::generate::body::events_in;
use crate::generate::event::Events;
use crate::generate::plan::{Plan, Role};
use crate::generate::settings::{Format, Settings};
use crate::ledger::Ledger;

use super::verdict::Verdict;

/// An answer accepted it.
const PROMISED: u8 = 1;
/// It was sent, and may be stored.
const POSTED: u8 = 2;
/// A row of it was found.
const SEEN: u8 = 4;
/// Another one, too.
const TWICE: u8 = 8;
/// A row of it was there before the run.
const BEFORE: u8 = 16;

/// What is known of each slot.
#[derive(Debug)]
pub(super) struct Slots {
    bits: Vec<u8>,
}

impl Slots {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            bits: vec![0; slots as usize],
        }
    }

    /// A row of `slot` was found.
    pub(super) fn see(&mut self, slot: u32) {
        let bits = &mut self.bits[slot as usize];
        *bits |= match *bits & SEEN {
            0 => SEEN,
            _ => TWICE,
        };
    }

    /// What was found was there before the run.
    pub(super) fn note_before(&mut self) {
        for bits in &mut self.bits {
            if *bits & SEEN != 0 {
                *bits |= BEFORE;
            }
        }
        self.forget_seen();
    }

    /// Makes ready for another look.
    pub(super) fn forget_seen(&mut self) {
        for bits in &mut self.bits {
            *bits &= !(SEEN | TWICE);
        }
    }

    /// Takes over what was posted and promised.
    pub(super) fn promise(&mut self, settings: &Settings, plan: &Plan, ledger: &Ledger) {
        for number in 0..plan.bodies() {
            let entry = ledger.entry(number);
            if !entry.posted {
                continue;
            }
            for slot in plan.slots_of(number) {
                let at = match plan.role(number, slot) {
                    Role::Invalid => continue,
                    Role::Fresh => slot,
                    Role::Repeat(original) => original,
                };
                self.bits[at as usize] |= match entry.accepted {
                    true => PROMISED | POSTED,
                    false => POSTED,
                };
            }
        }
        let mut events = Events::new(settings, plan);
        for odd in ledger.odd() {
            // All that such an answer does not reject was accepted all the same.
            let mut place = 0;
            for slot in plan.slots_of(odd.body) {
                let (body, at, valid) = match plan.role(odd.body, slot) {
                    Role::Invalid => (odd.body, slot, false),
                    Role::Fresh => (odd.body, slot, true),
                    Role::Repeat(original) => (plan.body_of(original), original, true),
                };
                let places = place..place + events_in(events.event(body, at));
                place = places.end;
                if valid && !odd.rejected.iter().any(|index| places.contains(index)) {
                    self.bits[at as usize] |= PROMISED;
                }
            }
        }
    }

    /// Compares what was found with what was promised.
    pub(super) fn judge(&self, settings: &Settings, plan: &Plan, verdict: &mut Verdict) {
        for (slot, bits) in (0..).zip(&self.bits) {
            let seen = bits & SEEN != 0;
            let promised = bits & PROMISED != 0;
            verdict.promised += u64::from(promised);
            verdict.found += u64::from(seen);
            if promised && !seen {
                verdict.missing += 1;
                verdict.example("missing", || describe(settings, plan, slot));
            }
            if bits & TWICE != 0 {
                verdict.twice += 1;
                verdict.example("stored twice", || describe(settings, plan, slot));
            }
            if seen && bits & (POSTED | BEFORE) == 0 {
                verdict.unexpected += 1;
                verdict.example("stored, though invalid or never posted", || {
                    describe(settings, plan, slot)
                });
            }
            if seen && bits & (PROMISED | BEFORE) == 0 && bits & POSTED != 0 {
                verdict.unanswered_stored += 1;
            }
        }
    }

    /// Slots of a format that were stored by this run: rows, and the events in them.
    pub(super) fn stored(&self, settings: &Settings, plan: &Plan, stream: usize) -> (u64, u64) {
        let mut events = Events::new(settings, plan);
        let (mut rows, mut lines) = (0, 0);
        for body in (0..plan.bodies()).filter(|&body| plan.stream_at(body) == stream) {
            for slot in plan.slots_of(body) {
                let bits = self.bits[slot as usize];
                if bits & SEEN == 0 || bits & BEFORE != 0 {
                    continue;
                }
                rows += 1;
                lines += match plan.stream_of(body).format {
                    Format::PipelinesV1 => u64::from(events_in(events.event(body, slot))),
                    _ => 1,
                };
            }
        }
        (rows, lines)
    }
}

/// A slot in words.
pub(super) fn describe(settings: &Settings, plan: &Plan, slot: u32) -> String {
    let body = plan.body_of(slot);
    let mut events = Events::new(settings, plan);
    let event = events.event(body, slot);
    let id = match event.format {
        Format::Native => format!("event_id {}", event.event_id),
        _ => match event.request {
            Some(request) => format!(
                "request_id {}",
                crate::generate::expect::request_uuid(request)
            ),
            None => "no id".to_owned(),
        },
    };
    format!(
        "{} {} {id} at {} (slot {slot}, body {body})",
        event.table.name(),
        event.format.as_str(),
        crate::report::time(event.occurred_us)
    )
}
