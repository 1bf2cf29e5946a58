//! The verdicts of the last bodies, for those who look.
//!
//! Invariant: nothing is kept and nothing is allocated unless the verdicts were asked for within
//! the last minute; until then a body costs one load and one comparison. A verdict holds counts,
//! codes and names of fields, and no id of an event, a user, a key or a tenant.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::ingest::response::{Answer, More, RejectedEvent};
use crate::http::problem::Problem;

/// Verdicts that are kept.
const KEPT: usize = 100;

/// For how long after a look verdicts are kept, in µs.
const WATCHED_FOR_US: i64 = 60_000_000;

/// Reasons of one verdict that are told one by one.
const REASONS_MAX: usize = 8;

/// Characters of a field's name that are told. Names come from senders.
const FIELD_CHARS_MAX: usize = 64;

/// What became of one body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Verdict {
    /// Ascends by one; where one is missing, more bodies came than are kept.
    number: u64,
    /// When the body was received, or refused.
    #[schema(example = "2026-05-24T10:00:00.123456Z")]
    at: String,
    /// The path that it was posted to.
    #[schema(example = "/v1/interactions")]
    endpoint: &'static str,
    /// The status of the answer.
    #[schema(example = 202)]
    status: u16,
    /// The level that was reached, if the body was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<&'static str>,
    /// The code of the problem, if the body was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Bytes of the body, decompressed, if it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// Events that were accepted.
    accepted: usize,
    /// Events that were rejected, each with its reason in the answer.
    rejected: usize,
    /// Messages of Segment's shape that tell of no item, and are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_collected: Option<usize>,
    /// With `committed`: events that are new in Postgres.
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<usize>,
    /// With `committed`: events that were in Postgres already.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicates: Option<usize>,
    /// With `committed`: events that were put into quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantined: Option<usize>,
    /// Why events were rejected or put into quarantine. The first eight reasons at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Reason>,
    /// What was done to accepted events that their sender may not expect: the codes, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
}

/// Why events of a body were rejected, or put into quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Reason {
    #[schema(value_type = String, example = "missing_field")]
    code: Cow<'static, str>,
    /// The field at fault. A name with other signs than letters, digits and `_.[]` is masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "item_id")]
    field: Option<String>,
    /// How many events.
    count: usize,
}

/// The last event that was rejected for a reason while verdicts were kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Example {
    pub(crate) at: Micros,
    /// Masked as in [`Reason`].
    pub(crate) field: Option<String>,
    pub(crate) message: Cow<'static, str>,
}

/// A body that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    /// The path that it was posted to.
    pub(crate) endpoint: &'static str,
    pub(crate) at: Micros,
    /// The status of the answer.
    pub(crate) status: u16,
    /// Bytes of the body, decompressed.
    pub(crate) bytes: usize,
    pub(crate) answer: &'a Answer,
    /// Messages that are not kept.
    pub(crate) not_collected: usize,
}

/// Keeps the verdicts of the last bodies while they are asked for.
#[derive(Debug)]
pub(crate) struct Tap {
    /// The number of the first verdict.
    began: u64,
    /// Until when verdicts are kept, in µs since 1970.
    watched_until_us: AtomicI64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// The number of the next verdict.
    next: u64,
    last: VecDeque<Verdict>,
    /// By table and code, so that there are no more than there are codes.
    examples: BTreeMap<(&'static str, &'static str), Example>,
}

impl Tap {
    /// A tap that is closed. Numbers begin with the time in µs: after a restart they are higher than
    /// all before it.
    pub(crate) fn new(now: Micros) -> Self {
        let began = u64::try_from(now.0).unwrap_or(1);
        Self {
            began,
            watched_until_us: AtomicI64::new(i64::MIN),
            kept: Mutex::new(Kept {
                next: began,
                last: VecDeque::new(),
                examples: BTreeMap::new(),
            }),
        }
    }

    /// The number of the first verdict since the start.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// Whether verdicts are kept at the moment.
    pub(crate) fn is_watched(&self, now: Micros) -> bool {
        now.0 < self.watched_until_us.load(Ordering::Relaxed)
    }

    /// Keeps the verdict on a body that was taken. `table_of` is where a rejected event is counted.
    pub(crate) fn note_answer(&self, taken: Taken<'_>, table_of: impl Fn(&RejectedEvent) -> Table) {
        let Taken { at, answer, .. } = taken;
        let mut reasons = Reasons::default();
        reasons.add_rejected(&answer.rejected, &answer.rejected_more);
        let set_aside = answer.quarantined.as_ref().map(|first| {
            for row in first {
                reasons.add(row.code.clone().into(), None, 1);
            }
            first.len() + reasons.add_more(&answer.quarantined_more)
        });
        let codes = answer.warnings.iter().map(|warning| warning.code);
        let more = answer.warnings_more.iter().map(|warning| warning.code);
        let mut warnings: Vec<_> = codes.chain(more).collect();
        warnings.sort_unstable();
        warnings.dedup();
        let verdict = Verdict {
            number: 0,
            at: at.to_string(),
            endpoint: taken.endpoint,
            status: taken.status,
            ack: Some(answer.ack),
            code: None,
            bytes: Some(taken.bytes),
            accepted: answer.accepted,
            rejected: reasons.rejected,
            not_collected: Some(taken.not_collected).filter(|count| *count > 0),
            committed: answer.committed,
            duplicates: answer.duplicates,
            quarantined: set_aside,
            reasons: reasons.told,
            warnings,
        };
        self.keep(verdict, at, &answer.rejected, table_of);
    }

    /// Keeps the verdict on a body that was refused as a whole. Its rejected events are counted at
    /// `table`.
    pub(crate) fn note_problem(
        &self,
        endpoint: &'static str,
        table: Table,
        at: Micros,
        problem: &Problem,
    ) {
        let mut reasons = Reasons::default();
        let (rejected, rejected_more) = problem.rejected_events();
        reasons.add_rejected(rejected, rejected_more);
        let verdict = Verdict {
            number: 0,
            at: at.to_string(),
            endpoint,
            status: problem.status().as_u16(),
            ack: None,
            code: Some(problem.code()),
            bytes: None,
            accepted: 0,
            rejected: reasons.rejected,
            not_collected: None,
            committed: None,
            duplicates: None,
            quarantined: None,
            reasons: reasons.told,
            warnings: Vec::new(),
        };
        self.keep(verdict, at, rejected, |_| table);
    }

    fn keep(
        &self,
        verdict: Verdict,
        at: Micros,
        rejected: &[RejectedEvent],
        table_of: impl Fn(&RejectedEvent) -> Table,
    ) {
        let mut kept = self.kept();
        for event in rejected {
            let example = Example {
                at,
                field: event.field.as_deref().map(masked),
                message: event.message.clone(),
            };
            kept.examples
                .insert((table_of(event).path(), event.code), example);
        }
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        let number = kept.next;
        kept.next += 1;
        kept.last.push_back(Verdict { number, ..verdict });
    }

    /// The verdicts with higher numbers than `after`, the oldest first. From now on verdicts are kept
    /// for a minute.
    pub(crate) fn look(&self, now: Micros, after: u64) -> Vec<Verdict> {
        let mut kept = self.kept();
        if !self.is_watched(now) {
            // Bodies came in between that are not among them.
            kept.last.clear();
        }
        let until = now.0.saturating_add(WATCHED_FOR_US);
        self.watched_until_us.store(until, Ordering::Relaxed);
        let newer = kept.last.iter().filter(|verdict| verdict.number > after);
        newer.cloned().collect()
    }

    /// The last event that was rejected, and counted at the table, with this code.
    pub(crate) fn example(&self, table: Table, code: &'static str) -> Option<Example> {
        self.kept().examples.get(&(table.path(), code)).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A verdict is added as a whole, so a panic elsewhere leaves none half written.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reasons, each with the number of events that have it.
#[derive(Default)]
struct Reasons {
    told: Vec<Reason>,
    rejected: usize,
}

impl Reasons {
    fn add_rejected(&mut self, first: &[RejectedEvent], more: &[More]) {
        for event in first {
            self.add(event.code.into(), event.field.as_deref(), 1);
        }
        self.rejected = first.len() + self.add_more(more);
    }

    /// Adds sums; returns how many events they are.
    fn add_more(&mut self, more: &[More]) -> usize {
        for sum in more {
            self.add(sum.code.clone(), None, sum.count);
        }
        more.iter().map(|sum| sum.count).sum()
    }

    fn add(&mut self, code: Cow<'static, str>, field: Option<&str>, count: usize) {
        let field = field.map(masked);
        let is_same = |reason: &&mut Reason| reason.code == code && reason.field == field;
        if let Some(reason) = self.told.iter_mut().find(is_same) {
            reason.count += count;
        } else if self.told.len() < REASONS_MAX {
            self.told.push(Reason { code, field, count });
        }
    }
}

/// A field's name as it may be shown: a sender may have put anything in its place.
fn masked(field: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
    match field.len() <= FIELD_CHARS_MAX && field.chars().all(is_name) {
        true => field.to_owned(),
        false => "(masked)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: i64 = 1_000_000;

    fn rejected(code: &'static str, field: &'static str) -> RejectedEvent {
        RejectedEvent {
            index: 0,
            event_id: Some("ada@example.com".to_owned()),
            code,
            field: Some(field.into()),
            message: "is required".into(),
        }
    }

    fn post(tap: &Tap, now: i64, rejected: Vec<RejectedEvent>) {
        let answer = Answer {
            ack: "durable",
            accepted: 2,
            rejected,
            ..Answer::default()
        };
        let taken = Taken {
            endpoint: "/v1/interactions",
            at: Micros(now),
            status: 202,
            bytes: 10,
            answer: &answer,
            not_collected: 0,
        };
        if tap.is_watched(Micros(now)) {
            tap.note_answer(taken, |_| Table::Interactions);
        }
    }

    #[test]
    fn verdicts_are_kept_for_a_minute_after_a_look_and_a_hundred_at_most() {
        let tap = Tap::new(Micros(5));
        let look = |now: i64, after: u64| -> Vec<u64> {
            let verdicts = tap.look(Micros(now), after);
            verdicts.iter().map(|verdict| verdict.number).collect()
        };
        post(&tap, 0, Vec::new());
        assert_eq!(look(0, 0), [0; 0], "no one had looked");
        post(&tap, 59 * SECOND_US, Vec::new());
        post(&tap, 61 * SECOND_US, Vec::new());
        assert_eq!(look(61 * SECOND_US, 0), [0; 0], "it was closed in between");
        for _ in 0..KEPT + 20 {
            post(&tap, 62 * SECOND_US, Vec::new());
        }
        let all = look(63 * SECOND_US, 0);
        assert_eq!(all.len(), KEPT);
        assert!(all.is_sorted_by(|a, b| a + 1 == *b), "{all:?}");
        let last = *all.last().expect("a hundred");
        assert_eq!(look(63 * SECOND_US, last - 2), [last - 1, last]);
        assert_eq!(look(63 * SECOND_US, last), [0; 0]);
    }

    #[test]
    fn reasons_are_summed_up_and_no_id_is_among_them() {
        let tap = Tap::new(Micros(5));
        tap.look(Micros(0), 0);
        let events = vec![
            rejected("missing_field", "items[3].item_id"),
            rejected("missing_field", "items[3].item_id"),
            rejected("unknown_field", "ada@example.com"),
        ];
        post(&tap, 1, events);
        let problem = Problem::rejected(0, vec![rejected("too_long", "surface")], Vec::new(), None);
        tap.note_problem("/v1/exposures", Table::Exposures, Micros(2), &problem);
        let verdicts = serde_json::to_value(tap.look(Micros(3), 0)).expect("JSON");
        assert_eq!(
            verdicts[0]["reasons"],
            serde_json::json!([
                {"code": "missing_field", "field": "items[3].item_id", "count": 2},
                {"code": "unknown_field", "field": "(masked)", "count": 1},
            ])
        );
        assert_eq!(verdicts[0]["accepted"], 2);
        assert_eq!(verdicts[0]["rejected"], 3);
        assert_eq!(verdicts[1]["status"], 422);
        assert_eq!(verdicts[1]["code"], "all_events_rejected");
        assert_eq!(verdicts[1]["rejected"], 1);
        assert!(!verdicts.to_string().contains("ada"), "{verdicts}");
        let example = tap.example(Table::Interactions, "unknown_field");
        assert_eq!(
            example.and_then(|one| one.field).as_deref(),
            Some("(masked)")
        );
        assert_eq!(tap.example(Table::Exposures, "unknown_field"), None);
    }
}
