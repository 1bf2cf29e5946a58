//! What was dropped of that which the migrations have made.

use super::diagnosis::{Diagnosis, Mend};
use super::probe::note;
use crate::finding::{Finding, Severity};
use crate::postgres::checks::relations::absent;
use crate::postgres::migrate::objects::Object;

/// What the service's own checks found, and what is gone. A table that both know is told once.
pub(super) fn judge(gone: &[Object], found: impl Iterator<Item = Finding>) -> Vec<Diagnosis> {
    let mut all: Vec<Diagnosis> = found.map(Diagnosis::from).collect();
    for object in gone {
        if object.can_be_made() {
            all.push(note(
                Severity::Degraded,
                "object_missing",
                format!("there is no {object}, although migrations have made it"),
                "statements of this program, or of others, that need it fail or are slow",
                "make it again, and grant the rights on it that it had",
                Mend::Command("recsys-ingest migrate".to_owned()),
            ));
            continue;
        }
        let seen = absent(object.name);
        let at = all.iter().position(|one| one.finding.seen == seen);
        let known = at.map(|at| all.remove(at).finding);
        let finding = known.unwrap_or_else(|| {
            let meaning = "the statements that need it fail";
            Finding::new(Severity::Degraded, "table_missing", seen, meaning, "")
        });
        all.push(lost(finding, object));
    }
    all
}

/// A table that was dropped: no migration makes it once more.
fn lost(finding: Finding, table: &Object) -> Diagnosis {
    let (remedy, mend) = match table.sql() {
        sql if sql.is_empty() => (
            "migrations have made it, and it was dropped: restore it from a backup, with what refers to it",
            Mend::Words,
        ),
        sql => (
            "migrations have made it, and it was dropped: restore it from a backup. Or make it empty with this SQL, \
             grant the rights on it that it had, and run `recsys-ingest migrate` for the views on it: what was in it \
             is lost then, for `recsys-ingest verify` as well",
            Mend::Sql(sql.into_iter().map(str::to_owned).collect()),
        ),
    };
    let remedy = remedy.to_owned();
    Diagnosis::new(Finding { remedy, ..finding }, mend)
}
