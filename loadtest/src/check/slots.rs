//! One byte a slot: what was promised, and what was found.

use super::findings::Findings;
use crate::generate::{Plan, Role, request_uuid};
use crate::report::{Tally, time};
use crate::service::Format;

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
    pub(super) fn promise(&mut self, plan: &Plan, passes: &[&Tally]) {
        for pass in passes {
            for (bodies, bit) in [(&pass.posted, POSTED), (&pass.accepted, PROMISED)] {
                for &body in bodies {
                    for slot in plan.slots_of(body) {
                        let (role, _, at) = plan.source(body, slot);
                        if role != Role::Invalid {
                            self.bits[at as usize] |= bit;
                        }
                    }
                }
            }
            for odd in &pass.odd {
                // All that such an answer does not reject was accepted all the same.
                let mut place = 0;
                for slot in plan.slots_of(odd.body) {
                    let (role, body, at) = plan.source(odd.body, slot);
                    let places = place..place + plan.event(body, at).count();
                    place = places.end;
                    let is_rejected = odd.rejected.iter().any(|index| places.contains(index));
                    if role != Role::Invalid && !is_rejected {
                        self.bits[at as usize] |= PROMISED;
                    }
                }
            }
        }
    }

    /// Compares what was found with what was promised.
    pub(super) fn judge(&self, plan: &Plan, findings: &mut Findings) {
        for (slot, bits) in (0..).zip(&self.bits) {
            let seen = bits & SEEN != 0;
            let promised = bits & PROMISED != 0;
            findings.promised += u64::from(promised);
            findings.found += u64::from(seen);
            if promised && !seen {
                findings.missing += 1;
                findings.example("missing", || describe(plan, slot));
            }
            if bits & TWICE != 0 {
                findings.twice += 1;
                findings.example("stored twice", || describe(plan, slot));
            }
            if seen && bits & (POSTED | BEFORE) == 0 {
                findings.unexpected += 1;
                let kind = "stored, though invalid or never posted";
                findings.example(kind, || describe(plan, slot));
            }
            if seen && bits & (PROMISED | BEFORE) == 0 && bits & POSTED != 0 {
                findings.unanswered_stored += 1;
            }
        }
    }

    /// What this run stored of a stream: rows, and the events in them.
    pub(super) fn stored(&self, plan: &Plan, stream: usize) -> (u64, u64) {
        let (mut rows, mut events) = (0, 0);
        for body in (0..plan.bodies()).filter(|&body| plan.stream_at(body) == stream) {
            for slot in plan.slots_of(body) {
                if self.bits[slot as usize] & (SEEN | BEFORE) == SEEN {
                    rows += 1;
                    events += match plan.stream_of(body).format {
                        Format::PipelinesV1 => u64::from(plan.event(body, slot).count()),
                        _ => 1,
                    };
                }
            }
        }
        (rows, events)
    }
}

/// A slot in words.
pub(super) fn describe(plan: &Plan, slot: u32) -> String {
    let body = plan.body_of(slot);
    let event = plan.event(body, slot);
    let id = match (event.format, &event.request) {
        (Format::Native, _) => format!("event_id {}", event.event_id),
        (_, Some(request)) => format!("request_id {}", request_uuid(request)),
        (_, None) => "no id".to_owned(),
    };
    format!(
        "{} {} {id} at {} (slot {slot}, body {body})",
        event.table,
        event.format.as_str(),
        time(event.occurred_us)
    )
}
