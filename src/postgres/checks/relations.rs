//! Checks the tables in our statements: whether they exist, and the privileges on them.

use crate::event::table::Table;

use super::facts::{Facts, Relation};
use crate::finding::{Finding, Severity};

/// The privileges that the service needs on a table that is not an event table.
struct Need {
    table: &'static str,
    privileges: &'static [&'static str],
    severity: Severity,
    /// The effect of a missing privilege.
    meaning: &'static str,
}

const NEEDS: [Need; 15] = [
    Need {
        table: "ingest_ledger",
        privileges: &["SELECT", "INSERT", "UPDATE"],
        severity: Severity::Fault,
        meaning: "no batch can be stored, as each is entered there",
    },
    Need {
        table: "ingest_holders",
        privileges: &["SELECT", "INSERT", "UPDATE"],
        severity: Severity::Fault,
        meaning: "no batch can be stored, as who holds the spool's accounts is noted there",
    },
    Need {
        table: "ingest_changed_days",
        privileges: &["SELECT", "INSERT", "UPDATE"],
        severity: Severity::Fault,
        meaning: "no batch can be stored, as the days that it changes are marked there",
    },
    Need {
        table: "ingest_retention",
        privileges: &["SELECT"],
        severity: Severity::Fault,
        meaning: "no batch can be stored, as it says which partitions are not made again",
    },
    Need {
        table: "ingest_erased_subjects",
        privileges: &["SELECT"],
        severity: Severity::Fault,
        meaning: "no batch can be stored, as events of users who were erased are left out",
    },
    Need {
        table: "ingest_removed_rows",
        privileges: &["SELECT", "INSERT"],
        severity: Severity::Degraded,
        meaning: "a batch with events of a user who was erased cannot be stored, as they are booked there",
    },
    Need {
        table: "ingest_quarantine",
        privileges: &["INSERT"],
        severity: Severity::Degraded,
        meaning: "a row that PostgreSQL refuses cannot be set aside, and keeps its lane waiting",
    },
    Need {
        table: "ingest_quarantine",
        privileges: &["SELECT", "DELETE"],
        severity: Severity::Degraded,
        meaning: "rows that wait there for a partition are not stored by themselves",
    },
    Need {
        table: "tenants",
        privileges: &["SELECT"],
        severity: Severity::Degraded,
        meaning: "tenants cannot be read, so that only keys known before are taken",
    },
    Need {
        table: "tenant_api_keys",
        privileges: &["SELECT"],
        severity: Severity::Degraded,
        meaning: "API keys cannot be read, so that only those known before are taken",
    },
    Need {
        table: "ingest_publish_keys",
        privileges: &["SELECT"],
        severity: Severity::Degraded,
        meaning: "API keys cannot be read, so that only those known before are taken",
    },
    Need {
        table: "ingest_key_settings",
        privileges: &["SELECT"],
        severity: Severity::Degraded,
        meaning: "API keys cannot be read, so that only those known before are taken",
    },
    Need {
        table: "ingest_tenant_settings",
        privileges: &["SELECT"],
        severity: Severity::Degraded,
        meaning: "tenants cannot be read, so that only keys known before are taken",
    },
    Need {
        table: "ingest_partition_log",
        privileges: &["INSERT"],
        severity: Severity::Note,
        meaning: "partitions are neither made nor sealed by this service, as each is noted there",
    },
    Need {
        table: "ingest_partition_log",
        privileges: &["SELECT"],
        severity: Severity::Note,
        meaning: "partitions are not sealed by this service, as it cannot read which are",
    },
];

pub(crate) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let role = &facts.server.role;
    for relation in &facts.relations {
        let table = event_table(relation);
        if relation.schema.is_none() {
            findings.push(missing(relation, role, table));
            continue;
        }
        if let Some(table) = table {
            findings.extend(shape(table, relation));
            findings.extend(partitions(table, relation, role));
        }
        findings.extend(row_security(relation, role, table));
        findings.extend(privileges(relation, role));
    }
}

fn event_table(relation: &Relation) -> Option<Table> {
    Table::ALL
        .into_iter()
        .find(|table| table.as_str() == relation.name)
}

/// The severity if a table that is not an event table does not work at all.
fn worst(relation: &Relation) -> Severity {
    let needs = NEEDS.iter().filter(|need| need.table == relation.name);
    let worst = needs.map(|need| need.severity).max();
    worst.unwrap_or(Severity::Fault)
}

fn about(finding: Finding, table: Option<Table>) -> Finding {
    match table {
        Some(table) => finding.about(table),
        None => finding,
    }
}

/// What is seen of a table that is not there.
pub(crate) fn absent(name: &str) -> String {
    format!("there is no table {name}")
}

fn missing(relation: &Relation, role: &str, table: Option<Table>) -> Finding {
    let name = &relation.name;
    let severity = worst(relation);
    let meaning = match severity {
        Severity::Fault => "events cannot be stored",
        _ => "the statements that need it fail",
    };
    let finding = match (&relation.closed_schemas, &relation.usable_schemas) {
        (Some(schemas), _) => Finding::new(
            severity,
            "privilege_missing",
            format!("the role {role} may not use the schema of {name} ({schemas})"),
            meaning,
            format!("GRANT USAGE ON SCHEMA {schemas} TO {role}"),
        ),
        (None, Some(schemas)) => Finding::new(
            severity,
            "table_missing",
            format!("{name} is in {schemas}, which is not on the search_path of the role {role}"),
            meaning,
            match schemas == "public" {
                true => format!("ALTER ROLE {role} SET search_path = public"),
                false => format!("ALTER ROLE {role} SET search_path = {schemas}, public"),
            },
        ),
        (None, None) => Finding::new(
            severity,
            "table_missing",
            absent(name),
            meaning,
            "run `recsys-ingest migrate` as a role that may create in the schema: it makes the table, or says what to \
             do where one was dropped",
        ),
    };
    about(finding, table)
}

fn shape(table: Table, relation: &Relation) -> Vec<Finding> {
    let mut findings = Vec::new();
    if relation.partition_key.as_deref() != Some("RANGE (occurred_at)") {
        let seen = match (&relation.partition_key, relation.kind.as_str()) {
            (Some(key), _) => format!("{table} is partitioned by {key}"),
            (None, "r") => format!("{table} is a plain table"),
            (None, _) => format!("{table} is not a table"),
        };
        findings.push(
            Finding::new(
                Severity::Fault,
                "table_not_partitioned",
                seen,
                "its rows cannot have partitions by time, so none is stored",
                "make it a table PARTITION BY RANGE (occurred_at)",
            )
            .about(table),
        );
    }
    if !relation.has_key {
        findings.push(
            Finding::new(
                Severity::Fault,
                "key_missing",
                format!("{table} has no valid unique index on (tenant_id, occurred_at, event_id)"),
                "an event that is sent twice would be stored twice",
                format!("CREATE UNIQUE INDEX ON {table} (tenant_id, occurred_at, event_id)"),
            )
            .about(table),
        );
    }
    findings
}

/// Checks what the role needs to create partitions. Without it another role may create them.
fn partitions(table: Table, relation: &Relation, role: &str) -> Option<Finding> {
    let schema = relation.schema.as_deref().unwrap_or_default();
    let owner = &relation.owner;
    let (lack, grant) = match (relation.may_create, relation.is_owner) {
        (true, true) => return None,
        (false, true) => (
            format!("may not create in the schema {schema}"),
            format!("GRANT CREATE ON SCHEMA {schema} TO {role}"),
        ),
        (true, false) => (
            format!("does not own {table}"),
            format!("GRANT {owner} TO {role}"),
        ),
        (false, false) => (
            format!("does not own {table} and may not create in the schema {schema}"),
            format!("GRANT {owner} TO {role}; GRANT CREATE ON SCHEMA {schema} TO {role}"),
        ),
    };
    Some(
        Finding::new(
            Severity::Note,
            "partitions_not_made",
            format!("the role {role} {lack}"),
            format!("the partitions of {table} are neither made nor sealed by this service"),
            format!("have another role make them ahead of time, or {grant}"),
        )
        .about(table),
    )
}

/// COPY refuses a table with active row-level security, and other statements see only the rows that
/// a policy permits.
fn row_security(relation: &Relation, role: &str, table: Option<Table>) -> Option<Finding> {
    let name = &relation.name;
    relation.has_row_security.then(|| {
        let meaning = match table {
            Some(_) => "COPY is refused there, so no event of that table can be stored",
            None => "rows that this service needs may be hidden from it",
        };
        let finding = Finding::new(
            worst(relation),
            "row_level_security",
            format!("row-level security of {name} applies to the role {role}"),
            meaning,
            format!(
                "ALTER ROLE {role} BYPASSRLS, or ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"
            ),
        );
        about(finding, table)
    })
}

fn privileges(relation: &Relation, role: &str) -> Vec<Finding> {
    let name = &relation.name;
    let has = |privilege: &str| match privilege {
        "SELECT" => relation.may_select,
        "INSERT" => relation.may_insert,
        "UPDATE" => relation.may_update,
        _ => relation.may_delete,
    };
    let needs = NEEDS.iter().filter(|need| need.table == *name);
    needs
        .filter_map(|need| {
            let lacking: Vec<&str> = need
                .privileges
                .iter()
                .copied()
                .filter(|privilege| !has(privilege))
                .collect();
            let lacking = lacking.join(", ");
            (!lacking.is_empty()).then(|| {
                Finding::new(
                    need.severity,
                    "privilege_missing",
                    format!("the role {role} may not {lacking} on {name}"),
                    need.meaning,
                    format!("GRANT {lacking} ON {name} TO {role}"),
                )
            })
        })
        .collect()
}
