//! The formats of events: how fields are named and nested.

use std::fmt;
use std::str::FromStr;

use super::body::RawEvent;
use super::table::Table;

/// How an event's fields are named and nested (contract §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// This service's format: the columns' names.
    Native,
    /// recsys-service's exposure log.
    ServiceV1,
    /// recsys-eval's exposure.v1, also written by recsys-service.
    EvalV1,
    /// recsys-pipelines' exposure.v1: one line for each item.
    PipelinesV1,
    /// recsys-eval's outcome.v1.
    OutcomeV1,
    /// recsys-eval's assignment.v1.
    AssignmentV1,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 6] = [
        Format::Native,
        Format::ServiceV1,
        Format::EvalV1,
        Format::PipelinesV1,
        Format::OutcomeV1,
        Format::AssignmentV1,
    ];

    /// The name in `?format=` and in `meta.schema`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::ServiceV1 => "service_v1",
            Format::EvalV1 => "eval_v1",
            Format::PipelinesV1 => "pipelines_v1",
            Format::OutcomeV1 => "outcome_v1",
            Format::AssignmentV1 => "assignment_v1",
        }
    }

    /// Whether events of this format go into `table`.
    pub fn fits(self, table: Table) -> bool {
        match self.table() {
            Some(own) => own == table,
            // assignment_v1 has all the columns' names that a native form would have.
            None => table != Table::Assignments,
        }
    }

    /// The table that its events go into; `None` for native ones, which have their table's fields.
    fn table(self) -> Option<Table> {
        match self {
            Format::Native => None,
            Format::ServiceV1 | Format::EvalV1 | Format::PipelinesV1 => Some(Table::Exposures),
            Format::OutcomeV1 => Some(Table::Interactions),
            Format::AssignmentV1 => Some(Table::Assignments),
        }
    }

    /// Where its events are posted, as advice.
    pub fn whereabouts(self) -> String {
        match self.table() {
            Some(table) => format!("post {} to {}", table.events(), table.path()),
            None => "send assignments as assignment_v1".to_owned(),
        }
    }

    /// Recognises an event's format by its fields.
    pub(super) fn recognise(table: Table, event: &RawEvent<'_, '_>) -> Self {
        // A null counts as absent, as everywhere.
        let has = |name: &str| {
            let mut fields = event.fields.iter();
            fields.any(|field| field.key == name && field.raw != "null")
        };
        match table {
            Table::Assignments => Format::AssignmentV1,
            _ if has("occurred_at") => Format::Native,
            Table::Interactions if has("ts") => Format::OutcomeV1,
            Table::Interactions => Format::Native,
            Table::Exposures if has("timestamp") && has("schema_version") => Format::ServiceV1,
            Table::Exposures if has("ts") && has("v") && !has("items") => Format::PipelinesV1,
            Table::Exposures if has("ts") => Format::EvalV1,
            Table::Exposures => Format::Native,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "native" => Format::Native,
            "service_v1" | "service" => Format::ServiceV1,
            "eval_v1" | "eval" | "exposure.v1" => Format::EvalV1,
            "pipelines_v1" | "pipelines" => Format::PipelinesV1,
            "outcome_v1" | "outcome" | "outcome.v1" => Format::OutcomeV1,
            "assignment_v1" | "assignment" | "assignment.v1" => Format::AssignmentV1,
            _ => {
                return Err(format!(
                    "there is no format '{}'; there are native, service_v1, eval_v1, pipelines_v1, outcome_v1 and assignment_v1",
                    name.chars().take(40).collect::<String>()
                ));
            }
        })
    }
}
