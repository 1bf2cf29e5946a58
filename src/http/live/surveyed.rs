//! The part of `/live` that comes from the survey of Postgres: quarantine, partitions, instances and
//! the sums of the ledger.

use serde::Serialize;
use utoipa::ToSchema;

use crate::accounts::survey::{Instance, Part, SetAside, TablePartitions, TableTotals};
use crate::http::app::App;

/// Rows in quarantine for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuarantineState {
    table: String,
    /// Postgres's code, or one of this service.
    #[schema(example = "23514")]
    code: String,
    rows: i64,
    last_at: String,
    /// Of the last one. Long hexadecimal numbers are cut off after eight digits.
    message: String,
    /// The column or constraint that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// The newest partitions of a table.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionsState {
    table: &'static str,
    /// In order of time.
    newest: Vec<PartitionState>,
    /// How many older ones there are.
    older: usize,
}

/// A partition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionState {
    name: String,
    /// The first instant inside; absent if it has no beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The first instant after it; absent if it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// With indexes and TOAST.
    bytes: i64,
    /// At the last VACUUM or ANALYZE.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<i64>,
    /// `hot` (only the key), `partly`, `sealed` (all indexes), `default` or `other` (never sealed).
    #[schema(example = "hot")]
    state: &'static str,
}

/// An instance that stores in this database.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InstanceState {
    /// The id of its spool.
    spool: String,
    /// Set for a copy of a spool that became a spool by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i64>,
    /// When its last batch was stored.
    stored_at: String,
    stored: i64,
    duplicates: i64,
    quarantined: i64,
    /// Whether it is the one that answers.
    is_this: bool,
}

/// What became of a table's rows in all instances.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TotalsState {
    table: String,
    stored: i64,
    duplicates: i64,
    /// In quarantine now.
    quarantined: i64,
    /// Were in quarantine and were removed from it, or are accepted as lost.
    dropped: i64,
}

impl QuarantineState {
    pub(super) fn of(found: &SetAside) -> Self {
        Self {
            table: found.table.clone(),
            code: found.code.clone(),
            rows: found.rows,
            last_at: found.last_at.to_string(),
            message: shortened(&found.message),
            place: found.place.clone(),
        }
    }
}

/// Hexadecimal digits that are told of a longer number: it may be the key of a user.
const HEX_TOLD: usize = 8;

/// Digits from which on a number counts as long; parts of a UUID are shorter.
const HEX_LONG: usize = 16;

/// Characters of a message that are told.
const MESSAGE_CHARS_MAX: usize = 300;

/// A message of Postgres's with long hexadecimal numbers cut off.
fn shortened(message: &str) -> String {
    let mut text = String::new();
    let mut rest = message;
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_hexdigit();
        let digits = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        match number.len() >= HEX_LONG {
            true => {
                text.push_str(&number[..HEX_TOLD]);
                text.push('…');
            }
            false => text.push_str(number),
        }
        let next = behind.find(is_digit).unwrap_or(behind.len());
        text.push_str(&behind[..next]);
        rest = &behind[next..];
    }
    if text.chars().count() > MESSAGE_CHARS_MAX {
        text = text.chars().take(MESSAGE_CHARS_MAX).collect();
        text.push('…');
    }
    text
}

impl PartitionsState {
    pub(super) fn of(found: &TablePartitions) -> Self {
        let state = |part: &Part| PartitionState {
            name: part.name.clone(),
            from: part.from.map(|at| at.to_string()),
            to: part.to.map(|at| at.to_string()),
            bytes: part.bytes,
            rows: part.rows,
            state: part.state,
        };
        Self {
            table: found.table.as_str(),
            newest: found.newest.iter().map(state).collect(),
            older: found.older,
        }
    }
}

impl InstanceState {
    pub(super) fn of(found: &Instance, app: &App) -> Self {
        let log = app.admission.log();
        let lineage = (!found.lineage.is_nil()).then(|| found.lineage.to_string());
        Self {
            spool: found.spool.to_string(),
            lineage,
            host: found.holder.as_ref().map(|(host, _)| host.clone()),
            pid: found.holder.as_ref().map(|(_, pid)| *pid),
            stored_at: found.stored_at.to_string(),
            stored: found.stored,
            duplicates: found.duplicates,
            quarantined: found.quarantined,
            is_this: found.spool == log.id() && found.lineage == log.lineage(),
        }
    }
}

impl TotalsState {
    pub(super) fn of(found: &TableTotals) -> Self {
        Self {
            table: found.table.clone(),
            stored: found.stored,
            duplicates: found.duplicates,
            quarantined: found.quarantined,
            dropped: found.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_hexadecimal_numbers_in_messages_are_cut_off() {
        let key = "ab".repeat(32);
        for (message, told) in [
            (String::new(), String::new()),
            ("value 12 is bad".to_owned(), "value 12 is bad".to_owned()),
            (
                format!("user \\x{key} is barred"),
                "user \\xabababab… is barred".to_owned(),
            ),
            (key, "abababab…".to_owned()),
            (
                "event 0198c3b1-7e1b-7000-8000-000000000001".to_owned(),
                "event 0198c3b1-7e1b-7000-8000-000000000001".to_owned(),
            ),
            ("é".repeat(400), "é".repeat(300) + "…"),
        ] {
            assert_eq!(shortened(&message), told, "{message}");
        }
    }
}
