//! Checks that the parents of the service's own tables are lean: a key and nothing else.
//!
//! The suite's migrations, run on a database that this service made, add indexes to both parents
//! and a DEFAULT partition to each. Everything goes on working, at two to four times the cost.
//! Tables that the suite made came with both and are left as they are: adopting them is a choice.

use crate::event::table::Table;

use super::facts::{Facts, Relation};
use crate::finding::{Finding, Severity};

/// The codes of these findings.
pub const CODES: [&str; 2] = ["parent_indexes", "default_partition"];

const REMEDY: &str =
    "run `recsys-ingest adopt --lean`, which shows its SQL before it removes anything";

pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    for table in Table::ALL {
        let is_ours = facts.columns.iter().any(|column| {
            column.table == table.as_str() && column.name == "event_id" && column.is_not_null
        });
        let relation = facts.relations.iter().find(|r| r.name == table.as_str());
        if let Some(relation) = relation.filter(|_| is_ours) {
            findings.extend(indexes(table, relation));
            findings.extend(default_partition(table, relation));
        }
    }
}

fn indexes(table: Table, relation: &Relation) -> Option<Finding> {
    let names = relation.further_indexes.as_deref()?;
    let seen = format!("{table} has indexes beside its key, which every partition gets: {names}");
    let meaning = "each row updates all of them while its partition is hot, which costs PostgreSQL \
                   two to four times the CPU; without them a partition is indexed in bulk once its \
                   time is over";
    let finding = Finding::new(Severity::Note, CODES[0], seen, meaning, REMEDY);
    Some(finding.about(table))
}

fn default_partition(table: Table, relation: &Relation) -> Option<Finding> {
    let name = relation.default_partition.as_deref()?;
    let seen = format!("{table} has a DEFAULT partition, {name}");
    let meaning = "a new partition has to wait for everyone who reads it, and rows in it are in the \
                   way of the partitions that they belong to";
    let finding = Finding::new(Severity::Note, CODES[1], seen, meaning, REMEDY);
    Some(finding.about(table))
}
