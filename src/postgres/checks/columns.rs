//! Checks the columns of the event tables against the row format.

use crate::event::interaction::LABELS;
use crate::event::row::{Column, Kind};
use crate::event::table::Table;

use super::facts::{ColumnFacts, Facts};
use crate::finding::{Finding, Severity};
use crate::postgres::ident::quoted;

/// The columns of the key, by which rows are looked up.
const KEY: [&str; 3] = ["tenant_id", "occurred_at", "event_id"];

/// Columns that are never null in a row, with the key.
const NEVER_NULL: [&str; 15] = [
    "tenant_id",
    "occurred_at",
    "event_id",
    "received_at",
    "algo_version",
    "request",
    "response",
    "event_type",
    "item_id",
    // Only in exposures.
    "exposure_events.request_id",
    "exposure_events.surface",
    "exposure_events.segment",
    // Only in assignments.
    "ingest_assignments.request_id",
    "ingest_assignments.experiment_id",
    "ingest_assignments.variant",
];

/// `numeric(18,6)`: the digits before the decimal point …
const DECIMAL_WHOLE_DIGITS: i32 = 12;
/// … and after it.
const DECIMAL_SCALE: i32 = 6;

/// Timestamps have microseconds.
const TIME_PRECISION: i32 = 6;

pub(crate) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    for table in Table::ALL {
        let found: Vec<&ColumnFacts> = facts
            .columns
            .iter()
            .filter(|column| column.table == table.as_str())
            .collect();
        if found.is_empty() {
            continue; // The table is missing, which is a finding already.
        }
        let by_name = |name: &str| found.iter().find(|column| column.name == name).copied();
        for column in table.columns() {
            match by_name(column.name) {
                Some(found) => findings.extend(judge_column(table, column, found)),
                None => findings.push(missing(table, column)),
            }
        }
        let is_written = |name: &str| table.columns().iter().any(|column| column.name == name);
        let unwritten = found.iter().filter(|column| {
            let needs_value = column.is_not_null && !column.has_default && !column.is_generated;
            needs_value && !is_written(&column.name)
        });
        findings.extend(unwritten.map(|column| not_written(table, column)));
        findings.extend(privileges(table, &found, &facts.server.role));
    }
}

fn missing(table: Table, column: &Column) -> Finding {
    Finding::new(
        Severity::Fault,
        "column_missing",
        format!("{table} has no column {}", column.name),
        "no event of that table can be stored, and what was in it is gone",
        format!(
            "ALTER TABLE {table} ADD COLUMN {} {}, or restore it from a backup",
            column.name,
            expected(column)
        ),
    )
    .about(table)
}

/// What gives a column the type that it has to have.
fn retype(table: Table, column: &Column) -> String {
    let (name, expected) = (column.name, expected(column));
    // An enum is made from a text.
    let through = match labels_of(column).is_empty() {
        true => "",
        false => "::text",
    };
    format!(
        "ALTER TABLE {table} ALTER COLUMN {name} TYPE {expected} USING {name}{through}::{expected}, or where \
         PostgreSQL says that a view uses the column, DROP VIEW first and `recsys-ingest migrate` after it"
    )
}

fn not_written(table: Table, column: &ColumnFacts) -> Finding {
    let name = &column.name;
    Finding::new(
        Severity::Fault,
        "column_not_written",
        format!("{table}.{name} is NOT NULL and has no default"),
        "events have no value for it, so none of that table can be stored",
        format!(
            "give it a default, or ALTER TABLE {table} ALTER COLUMN {} DROP NOT NULL",
            quoted(name)
        ),
    )
    .about(table)
}

fn privileges(table: Table, found: &[&ColumnFacts], role: &str) -> Vec<Finding> {
    let names = |is_lacking: &dyn Fn(&ColumnFacts) -> bool, wanted: &[&str]| -> Vec<String> {
        let lacking = found
            .iter()
            .filter(|column| wanted.contains(&&*column.name) && is_lacking(column));
        lacking.map(|column| column.name.clone()).collect()
    };
    let written: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    let not_insertable = names(&|column| !column.may_insert, &written);
    let not_readable = names(&|column| !column.may_select, &KEY);
    let finding = |privilege: &str, lacking: Vec<String>, all: usize, purpose: &str| {
        let columns = match lacking.len() == all {
            true => String::new(),
            false => format!(" ({})", lacking.join(", ")),
        };
        Finding::new(
            Severity::Fault,
            "privilege_missing",
            format!("the role {role} may not {privilege} on {table}{columns}"),
            purpose,
            format!("GRANT {privilege} ON {table} TO {role}"),
        )
        .about(table)
    };
    let mut findings = Vec::new();
    if !not_insertable.is_empty() {
        let purpose = "no event of that table can be stored";
        findings.push(finding("INSERT", not_insertable, written.len(), purpose));
    }
    if !not_readable.is_empty() {
        let purpose = "rows that are stored already cannot be told from new ones";
        findings.push(finding("SELECT", not_readable, KEY.len(), purpose));
    }
    findings
}

fn judge_column(table: Table, column: &Column, found: &ColumnFacts) -> Vec<Finding> {
    let name = column.name;
    let is = &found.full_type;
    let mut findings = Vec::new();
    let mut add = |severity, code, seen: String, meaning: &str, remedy: String| {
        findings.push(Finding::new(severity, code, seen, meaning, remedy).about(table));
    };
    if found.is_generated {
        add(
            Severity::Fault,
            "column_generated",
            format!("{table}.{name} is a generated column"),
            "events bring a value for it, so none of that table can be stored",
            format!("ALTER TABLE {table} ALTER COLUMN {name} DROP EXPRESSION"),
        );
    }
    if !has_kind(column, found) {
        let expected = expected(column);
        add(
            Severity::Fault,
            "column_type",
            format!("{table}.{name} is {is}, it has to be {expected}"),
            "no event of that table can be stored",
            retype(table, column),
        );
        return findings;
    }
    if let Some((severity, meaning)) = limit(column, found) {
        add(
            severity,
            "column_limit",
            format!("{table}.{name} is {is}, it should be {}", expected(column)),
            meaning,
            retype(table, column),
        );
    }
    if let Some(labels) = &found.labels {
        let wanted = labels_of(column);
        let lacking: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|wanted| !labels.iter().any(|label| label == wanted))
            .collect();
        if !lacking.is_empty() {
            add(
                Severity::Degraded,
                "enum_label_missing",
                format!(
                    "{table}.{name} is the enum {is}, without {}",
                    lacking.join(", ")
                ),
                "events with these values are set aside",
                lacking
                    .iter()
                    .map(|label| format!("ALTER TYPE {is} ADD VALUE '{label}'"))
                    .collect::<Vec<_>>()
                    .join("; "),
            );
        }
    }
    if found.is_not_null && !is_never_null(table, name) {
        add(
            Severity::Degraded,
            "column_not_null",
            format!("{table}.{name} is NOT NULL"),
            "events without a value for it are set aside",
            format!("ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL"),
        );
    }
    findings
}

fn is_never_null(table: Table, name: &str) -> bool {
    NEVER_NULL
        .iter()
        .any(|always| match always.split_once('.') {
            Some((of, column)) => of == table.as_str() && column == name,
            None => *always == name,
        })
}

/// Whether COPY accepts this kind of value for the column.
fn has_kind(column: &Column, found: &ColumnFacts) -> bool {
    match column.kind {
        Kind::Uuid => found.base == "uuid",
        Kind::Time => found.base == "timestamptz",
        Kind::Bytes => found.base == "bytea",
        Kind::Int => found.base == "int4",
        Kind::Decimal => found.base == "numeric",
        Kind::Json => found.base == "jsonb",
        Kind::Text => {
            let is_enum = found.labels.is_some() && !labels_of(column).is_empty();
            found.category == "S" || is_enum
        }
    }
}

/// The effect of a length or precision that is too small.
fn limit(column: &Column, found: &ColumnFacts) -> Option<(Severity, &'static str)> {
    let modifier = found.modifier;
    if modifier < 0 {
        return None;
    }
    match column.kind {
        Kind::Text => Some((
            Severity::Degraded,
            "events with longer values are set aside",
        )),
        Kind::Time if modifier < TIME_PRECISION && KEY.contains(&column.name) => Some((
            Severity::Fault,
            "times are rounded when they are stored, so that an event is not found again by its key",
        )),
        Kind::Time if modifier < TIME_PRECISION => {
            Some((Severity::Degraded, "times are rounded when they are stored"))
        }
        Kind::Decimal => {
            // The encoding of a numeric type modifier in `numeric.c`.
            let precision = ((modifier - 4) >> 16) & 0xffff;
            let scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
            if scale < DECIMAL_SCALE {
                Some((
                    Severity::Degraded,
                    "values are rounded when they are stored",
                ))
            } else if precision - scale < DECIMAL_WHOLE_DIGITS {
                Some((
                    Severity::Degraded,
                    "events with larger values are set aside",
                ))
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The values of a column that may be an enum.
fn labels_of(column: &Column) -> &'static [&'static str] {
    match column.name {
        "event_type" => &LABELS,
        _ => &[],
    }
}

fn expected(column: &Column) -> &'static str {
    match column.kind {
        Kind::Uuid => "uuid",
        Kind::Time => "timestamp with time zone",
        Kind::Text if column.name == "event_type" => "interaction_type",
        Kind::Text => "text",
        Kind::Bytes => "bytea",
        Kind::Int => "integer",
        Kind::Decimal => "numeric(18,6)",
        Kind::Json => "jsonb",
    }
}
