//! What a sender is told about its events.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use crate::event::{Decoded, Rejected};
use crate::queue::Outcome;

/// The answer to a body of which at least one event was accepted.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Answer {
    /// The level that was reached: `received`, `durable` or `committed`.
    #[schema(example = "committed")]
    pub ack: &'static str,
    /// Events that are valid and were taken on.
    #[schema(example = 98)]
    pub accepted: usize,
    /// Events that are not valid; all others are unharmed.
    pub rejected: Vec<RejectedEvent>,
    /// With `committed`: events that are new in Postgres now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 97)]
    pub committed: Option<usize>,
    /// With `committed`: events that were in Postgres already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1)]
    pub duplicates: Option<usize>,
    /// With `committed`: events that were set aside in quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Vec<QuarantinedEvent>>,
}

/// An event that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RejectedEvent {
    /// Its place in the body, from 0.
    #[schema(example = 3)]
    pub index: u32,
    /// Its id, where it has a legible one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Why, for programs.
    #[schema(example = "missing_field")]
    pub code: &'static str,
    /// The field at fault, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "item_id")]
    pub field: Option<Cow<'static, str>>,
    /// Why, for people.
    #[schema(value_type = String, example = "is required")]
    pub message: Cow<'static, str>,
}

/// An event that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuarantinedEvent {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Postgres's code, or ours: `IN001`, it waits for a partition; `IN002`, a trigger left it out.
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

/// Which events of a body each row holds, to speak of events where the store
/// speaks of rows.
#[derive(Debug)]
pub struct Origins(Vec<(u32, u32)>);

impl Origins {
    /// Takes the origins out of a decoded body.
    pub fn of(decoded: &mut Decoded) -> Self {
        let mut origins = std::mem::take(&mut decoded.origins);
        origins.sort_unstable();
        Self(origins)
    }

    /// How many events were accepted.
    pub fn events(&self) -> usize {
        self.0.len()
    }

    /// The events in a row.
    fn events_of(&self, row: u32) -> impl Iterator<Item = u32> {
        let from = self.0.partition_point(|&(of, _)| of < row);
        self.0[from..]
            .iter()
            .take_while(move |&&(of, _)| of == row)
            .map(|&(_, event)| event)
    }

    /// Completes an answer with what became of the rows.
    pub fn settle(&self, outcome: &Outcome, answer: &mut Answer) {
        let duplicates = outcome
            .duplicates
            .iter()
            .map(|&row| self.events_of(row).count())
            .sum();
        let mut quarantined: Vec<_> = outcome
            .quarantined
            .iter()
            .flat_map(|bad| {
                self.events_of(bad.row).map(|index| QuarantinedEvent {
                    index,
                    code: bad.sqlstate.clone(),
                    message: bad.message.clone(),
                })
            })
            .collect();
        // Rows come back in the order of their keys.
        quarantined.sort_unstable_by_key(|bad| bad.index);
        answer.committed = Some(self.events() - duplicates - quarantined.len());
        answer.duplicates = Some(duplicates);
        answer.quarantined = Some(quarantined);
    }
}
