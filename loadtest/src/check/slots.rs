//! What was promised of each slot, and what was found.

use std::collections::BTreeMap;

use super::findings::Findings;
use crate::generate::{Kind, Plan, Role, request_uuid};
use crate::report::{Tally, time};
use crate::service::Format;

/// What is known of a slot; four bytes, as there may be ten millions.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// An answer accepted it.
    promised: bool,
    /// It was sent, and may be stored.
    posted: bool,
    /// A row of it was there before the run.
    before: bool,
    /// Rows of it that were found, up to two.
    seen: u8,
}

/// What is known of each slot.
#[derive(Debug)]
pub struct Slots(Vec<Slot>);

impl Slots {
    pub fn new(slots: u32) -> Self {
        Self(vec![Slot::default(); slots as usize])
    }

    /// A row of `slot` was found.
    pub fn see(&mut self, slot: u32) {
        let seen = &mut self.0[slot as usize].seen;
        *seen = 2.min(*seen + 1);
    }

    /// What was found was there before the run.
    pub fn mark_before(&mut self) {
        for slot in &mut self.0 {
            slot.before = slot.seen > 0;
        }
    }

    /// Makes ready for another look.
    pub fn forget_seen(&mut self) {
        for slot in &mut self.0 {
            slot.seen = 0;
        }
    }

    /// Takes over what was posted and promised.
    pub fn promise(&mut self, plan: &Plan, passes: &[Tally]) {
        for pass in passes {
            self.mark(plan, &pass.posted, |slot| slot.posted = true);
            self.mark(plan, &pass.accepted, |slot| slot.promised = true);
            for odd in &pass.odd {
                // All that such an answer does not reject was accepted all the same.
                let mut place = 0;
                for slot in plan.slots_of(odd.body) {
                    let (role, body, at) = plan.source(odd.body, slot);
                    let places = place..place + plan.event(body, at).count();
                    place = places.end;
                    let is_rejected = odd.rejected.iter().any(|index| places.contains(index));
                    if role != Role::Invalid && !is_rejected {
                        self.0[at as usize].promised = true;
                    }
                }
            }
        }
    }

    /// Marks the valid events of bodies.
    fn mark(&mut self, plan: &Plan, bodies: &[u32], mark: fn(&mut Slot)) {
        for &body in bodies {
            for slot in plan.slots_of(body) {
                let (role, _, at) = plan.source(body, slot);
                if role != Role::Invalid {
                    mark(&mut self.0[at as usize]);
                }
            }
        }
    }

    /// Compares what was found with what was promised.
    pub fn judge(&self, plan: &Plan, findings: &mut Findings) {
        for (number, slot) in (0..).zip(&self.0) {
            let example = || describe(plan, number);
            let is_seen = slot.seen > 0;
            findings.promised += u64::from(slot.promised);
            findings.found += u64::from(is_seen);
            if slot.promised && !is_seen {
                findings.missing += 1;
                findings.example("missing", example);
            }
            if slot.seen > 1 {
                findings.twice += 1;
                findings.example("stored twice", example);
            }
            if is_seen && !slot.posted && !slot.before {
                findings.unexpected += 1;
                findings.example("stored, though invalid or never posted", example);
            }
            if is_seen && slot.posted && !slot.promised && !slot.before {
                findings.unanswered_stored += 1;
            }
        }
    }

    /// What this run stored of each kind: rows, and the events in them.
    pub fn stored(&self, plan: &Plan) -> BTreeMap<Kind, (u64, u64)> {
        let mut stored: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
        for body in 0..plan.bodies() {
            let stream = plan.stream_of(body);
            let (rows, events) = stored.entry(stream.kind()).or_default();
            for slot in plan.slots_of(body) {
                let Slot { seen, before, .. } = self.0[slot as usize];
                if seen > 0 && !before {
                    *rows += 1;
                    *events += match stream.format {
                        Format::PipelinesV1 => u64::from(plan.event(body, slot).count()),
                        _ => 1,
                    };
                }
            }
        }
        stored
    }
}

/// A slot in words.
pub fn describe(plan: &Plan, slot: u32) -> String {
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
