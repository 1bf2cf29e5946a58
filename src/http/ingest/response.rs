//! What a sender learns about its events.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::warnings::{MoreWarnings, Warning};
use crate::event::decode::{REJECTED_IN_FULL, Rejected};
use crate::event::rejection::Code;

/// The response to a body with at least one accepted event.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Answer {
    /// The level that was reached: `received`, `durable` or `committed`; with `?validate=true`: `none`.
    #[schema(example = "committed")]
    pub ack: &'static str,
    /// Why that is `durable` where `committed` was asked for: `commit_timeout`, the COMMIT or the
    /// writer's word of it is too late for this response; `no_result`, the instance stops, or another
    /// one stores the events. They are stored in any case. `spooled`, also where `durable` was asked for: Kafka
    /// is away, and the events are on the disk of this machine alone until it is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "commit_timeout")]
    pub ack_reason: Option<&'static str>,
    /// Events that are valid and were accepted.
    #[schema(example = 98)]
    pub accepted: usize,
    /// With `?validate=true`: events that are valid and were not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<usize>,
    /// Events that are not valid; the others are not affected. The first hundred at most.
    #[schema(max_items = 100)]
    pub rejected: Vec<RejectedEvent>,
    /// The invalid events that are not in `rejected`, by code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected_more: Vec<More>,
    /// What was done to accepted events that their sender may not expect, by field. At most twenty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20)]
    pub warnings: Vec<Warning>,
    /// The warnings that are not in `warnings`, by code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings_more: Vec<MoreWarnings>,
    /// With `committed`: events that are new in Postgres now. An event of several items counts once,
    /// with the worst result of its rows: committed, then duplicate, then quarantined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 97)]
    pub committed: Option<usize>,
    /// With `committed`: events that were in Postgres already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1)]
    pub duplicates: Option<usize>,
    /// With `committed`: events that were put into quarantine. The first hundred at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100)]
    pub quarantined: Option<Vec<QuarantinedEvent>>,
    /// With `committed`: the events in quarantine that are not in `quarantined`, by code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined_more: Vec<More>,
}

impl Answer {
    /// Adds the results of the rows of another table.
    pub fn add_results(&mut self, other: Self) {
        let sum = |one: Option<usize>, other: Option<usize>| match (one, other) {
            (one, None) => one,
            (one, Some(other)) => Some(one.unwrap_or(0) + other),
        };
        self.committed = sum(self.committed, other.committed);
        self.duplicates = sum(self.duplicates, other.duplicates);
        if let Some(more) = other.quarantined {
            let all = self.quarantined.get_or_insert_default();
            all.extend(more);
            all.sort_by_key(|one| one.index);
        }
        self.quarantined_more.extend(other.quarantined_more);
    }
}

/// Events with the same code, beyond those that are listed one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct More {
    /// Why, for programs.
    #[schema(value_type = String, example = "missing_field")]
    pub code: Cow<'static, str>,
    /// How many events.
    #[schema(example = 103)]
    pub count: usize,
    /// Their places in the body, ascending: single ones and ranges with both ends.
    #[schema(example = "100-199,203,207-208")]
    pub events: String,
}

/// The bytes that a response has left for results in full.
///
/// A response has at most three times the bytes of its body, and 4 KiB. A summary takes at most six
/// bytes an event (`9999,` or `10001,`; with `--events-max` above 100,000 it may be seven). The
/// names and counts around it take less than 2.5 KiB. The rest is for results in full.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    bytes: usize,
}

impl Room {
    /// The room in a response to any body.
    pub const BYTES_LEAST: usize = 1536;

    /// The room in a response to a body of this size and number of events.
    pub fn of(body_bytes: usize, events: usize) -> Self {
        let beyond_summaries = (3 * body_bytes).saturating_sub(6 * events);
        Self {
            bytes: Self::BYTES_LEAST + beyond_summaries,
        }
    }

    /// Room for nothing but summaries.
    pub fn for_summaries() -> Self {
        Self { bytes: 0 }
    }

    /// Takes the bytes of one result; false if there is no room.
    pub fn take(&mut self, result: &impl Serialize) -> bool {
        let bytes = serde_json::to_vec(result).map_or(usize::MAX, |json| json.len() + 1);
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }

    /// Takes results while there is room, [`REJECTED_IN_FULL`] at most. Also returns the first that
    /// did not fit; the others stay in `results`.
    pub fn take_first<T: Serialize>(
        &mut self,
        results: &mut impl Iterator<Item = T>,
    ) -> (Vec<T>, Option<T>) {
        let mut taken = Vec::new();
        while taken.len() < REJECTED_IN_FULL {
            match results.next() {
                Some(result) if self.take(&result) => taken.push(result),
                // The first result that does not fit ends the list.
                other => return (taken, other),
            }
        }
        (taken, None)
    }
}

/// Sums results up by code. The indexes have to ascend.
#[derive(Debug, Default)]
pub struct Summary(BTreeMap<Cow<'static, str>, Places>);

#[derive(Debug, Default)]
struct Places {
    count: usize,
    /// Complete ranges.
    text: String,
    /// The last range, which may still grow.
    open: Option<(u32, u32)>,
}

impl Summary {
    /// Adds the event at this place.
    pub fn add(&mut self, code: Cow<'static, str>, index: u32) {
        let places = self.0.entry(code).or_default();
        places.count += 1;
        match &mut places.open {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => {
                places.close();
                places.open = Some((index, index));
            }
        }
    }

    /// The sums.
    pub fn finish(self) -> Vec<More> {
        let more = |(code, mut places): (_, Places)| {
            places.close();
            More {
                code,
                count: places.count,
                events: places.text,
            }
        };
        self.0.into_iter().map(more).collect()
    }
}

impl Places {
    fn close(&mut self) {
        let Some((first, last)) = self.open.take() else {
            return;
        };
        let comma = if self.text.is_empty() { "" } else { "," };
        self.text.push_str(&match first == last {
            true => format!("{comma}{first}"),
            false => format!("{comma}{first}-{last}"),
        });
    }
}

/// The rejected events of a body: the first ones in full while there is room, the others summed up.
pub fn rejections(
    first: Vec<Rejected>,
    others: &[(u32, Code)],
    room: &mut Room,
) -> (Vec<RejectedEvent>, Vec<More>) {
    let mut first = first.into_iter().map(RejectedEvent::from);
    let (told, cut_off) = room.take_first(&mut first);
    let mut summary = Summary::default();
    for rejected in cut_off.into_iter().chain(first) {
        summary.add(rejected.code.into(), rejected.index);
    }
    for (index, code) in others {
        summary.add(code.as_str().into(), *index);
    }
    (told, summary.finish())
}

/// A response's bytes and their reservation, which is released once the last of them is sent.
#[derive(Debug)]
struct Reserved<L> {
    bytes: Vec<u8>,
    #[expect(dead_code, reason = "held, not read")]
    reservation: L,
}

impl<L> AsRef<[u8]> for Reserved<L> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Ties a reservation to its bytes.
pub fn with_reservation<L: Send + 'static>(mut bytes: Vec<u8>, reservation: Option<L>) -> Bytes {
    match reservation {
        None => bytes.into(),
        Some(reservation) => {
            bytes.shrink_to_fit();
            Bytes::from_owner(Reserved { bytes, reservation })
        }
    }
}

/// An event that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RejectedEvent {
    /// Its place in the body, from 0.
    #[schema(example = 3)]
    pub index: u32,
    /// Its id, if it has a readable one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Why, for programs.
    #[schema(example = "missing_field")]
    pub code: &'static str,
    /// The field at fault, if it is one field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "item_id")]
    pub field: Option<Cow<'static, str>>,
    /// Why, for people.
    #[schema(value_type = String, example = "is required")]
    pub message: Cow<'static, str>,
}

/// An event that was put into quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuarantinedEvent {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Postgres's code, or one of this service: `IN001`, it waits for a partition; `IN002`, a
    /// trigger left it out; `IN003`, it is older than what is kept.
    #[schema(example = "23514")]
    pub code: String,
    /// Why, in words.
    pub message: String,
}

impl From<Rejected> for RejectedEvent {
    fn from(rejected: Rejected) -> Self {
        Self {
            index: rejected.index,
            event_id: rejected.event_id,
            code: rejected.rejection.code.as_str(),
            field: rejected.rejection.field.filter(|field| !field.is_empty()),
            message: rejected.rejection.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admission::memory::MemoryLimit;
    use crate::event::rejection::Rejection;

    proptest! {
        #[test]
        fn every_verdict_can_be_found_in_a_summary(
            verdicts in proptest::collection::vec(proptest::option::of(0..3_usize), 0..200),
        ) {
            const CODES: [&str; 3] = ["a", "b", "c"];
            let mut summary = Summary::default();
            for (index, verdict) in (0..).zip(&verdicts) {
                if let Some(code) = verdict {
                    summary.add(CODES[*code].into(), index);
                }
            }
            let mut found = vec![None; verdicts.len()];
            for more in summary.finish() {
                let mut count = 0;
                for part in more.events.split(',') {
                    let (from, to) = part.split_once('-').unwrap_or((part, part));
                    let range = from.parse::<usize>().unwrap()..=to.parse().unwrap();
                    count += range.clone().count();
                    found[range].fill(CODES.iter().position(|code| *code == more.code));
                }
                prop_assert_eq!(count, more.count);
            }
            prop_assert_eq!(found, verdicts);
        }

        #[test]
        fn an_answer_stays_within_its_bound(
            events in proptest::collection::vec((0..300_usize, 0..3_usize), 1..400),
        ) {
            const CODES: [Code; 3] = [Code::NotAnObject, Code::MissingField, Code::TooLong];
            let rejected = |(index, (bytes, code)): (usize, &(usize, usize))| Rejected {
                index: u32::try_from(index).unwrap(),
                event_id: Some("\u{1}".repeat(*bytes)),
                rejection: Rejection::of(CODES[*code], "a field", "x".repeat(*bytes)),
            };
            let (first, others) = events.split_at(events.len().min(REJECTED_IN_FULL));
            let first: Vec<_> = first.iter().enumerate().map(rejected).collect();
            let others: Vec<_> = others
                .iter()
                .enumerate()
                .map(|(at, (_, code))| (u32::try_from(REJECTED_IN_FULL + at).unwrap(), CODES[*code]))
                .collect();
            // No event has fewer than two bytes with what is around it.
            let body_bytes = events.iter().map(|(bytes, _)| bytes + 2).sum();
            let mut room = Room::of(body_bytes, events.len());
            let (told, more) = rejections(first, &others, &mut room);
            let counted: usize = more.iter().map(|more| more.count).sum();
            prop_assert_eq!(told.len() + counted, events.len());
            let answer = Answer {
                rejected: told,
                rejected_more: more,
                ..Answer::default()
            };
            let bytes = serde_json::to_vec(&answer).unwrap().len();
            prop_assert!(bytes <= 3 * body_bytes + 4096, "{} for {}", bytes, body_bytes);
        }
    }

    #[test]
    fn the_memory_of_an_answer_comes_back_with_the_last_of_its_bytes() {
        let budget = MemoryLimit::new(1000);
        let bytes = with_reservation(vec![b'x'; 600], budget.reserve(600));
        let (head, tail) = (bytes.slice(..10), bytes.slice(590..));
        drop(bytes);
        drop(head);
        assert_eq!(budget.reserved(), 600);
        drop(tail);
        assert_eq!(budget.reserved(), 0);
    }
}
