//! A finding with what mends it.

use serde_json::{Value, json};

use crate::finding::Finding;
use crate::partitions::range::Range;

/// What is to be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// The finding's own words say it.
    Words,
    /// A command of this program, or of the operating system.
    Command(String),
    /// Statements for an operator: they wait for locks, or need a decision.
    Sql(Vec<String>),
    /// A statement that blocks no reader and no writer, and takes nothing away.
    SafeSql(String),
    /// Partitions to make, as the service makes them.
    Partitions(Vec<Range>),
}

/// A finding, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was seen, what it costs, what to do.
    pub finding: Finding,
    /// The same as SQL or as a command.
    pub mend: Mend,
}

/// All that was found, and what could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// The worst first.
    pub diagnoses: Vec<Diagnosis>,
    /// Why something was not looked at, a sentence each.
    pub not_looked_at: Vec<String>,
}

impl Mend {
    /// Whether `doctor --fix` does it.
    pub fn is_safe(&self) -> bool {
        matches!(self, Mend::SafeSql(_) | Mend::Partitions(_))
    }

    /// Its SQL, a statement each; empty if it is none.
    pub fn sql(&self) -> Vec<String> {
        match self {
            Mend::Sql(sql) => sql.clone(),
            Mend::SafeSql(sql) => vec![sql.clone()],
            Mend::Words | Mend::Command(_) | Mend::Partitions(_) => Vec::new(),
        }
    }

    /// Its command.
    pub fn command(&self) -> Option<&str> {
        match self {
            Mend::Command(command) => Some(command),
            Mend::Partitions(_) => Some("recsys-ingest doctor --fix"),
            Mend::Words | Mend::Sql(_) | Mend::SafeSql(_) => None,
        }
    }
}

impl Diagnosis {
    pub(crate) fn new(finding: Finding, mend: Mend) -> Self {
        Self { finding, mend }
    }

    /// One document; `outcome` is what `--fix` did.
    pub fn json(&self, outcome: Option<&Result<String, String>>) -> Value {
        let Finding {
            code,
            severity,
            table,
            seen,
            meaning,
            remedy,
        } = &self.finding;
        json!({
            "code": code,
            "severity": severity.as_str(),
            "table": table.map(|table| table.as_str()),
            "seen": seen,
            "meaning": meaning,
            "remedy": remedy,
            "sql": self.mend.sql(),
            "command": self.mend.command(),
            "is_safe": self.mend.is_safe(),
            "mended": outcome.and_then(|outcome| outcome.as_ref().ok()),
            "not_mended": outcome.and_then(|outcome| outcome.as_ref().err()),
        })
    }
}

impl From<Finding> for Diagnosis {
    /// A finding of the service's own checks. Of the ways that a remedy names (one, or another), the
    /// first that is SQL is SQL as it stands.
    fn from(finding: Finding) -> Self {
        const VERBS: [&str; 3] = ["GRANT ", "ALTER ", "CREATE "];
        let remedy = &finding.remedy;
        let mut ways = remedy.split(", or ");
        let sql = ways.find(|way| VERBS.iter().any(|verb| way.starts_with(verb)));
        let mend = if let Some(sql) = sql {
            let statements = sql.split("; ").map(|statement| format!("{statement};"));
            Mend::Sql(statements.collect())
        } else if let Some((_, rest)) = remedy.split_once('`')
            && let Some((command, _)) = rest.split_once('`')
        {
            Mend::Command(command.to_owned())
        } else {
            Mend::Words
        };
        Self { finding, mend }
    }
}

impl Examination {
    /// Adds what a probe found, or that it could not look.
    pub(crate) fn add(&mut self, what: &str, found: anyhow::Result<Vec<Diagnosis>>) {
        match found {
            Ok(found) => self.diagnoses.extend(found),
            Err(error) => self.not_looked_at.push(format!("{what}: {error:#}")),
        }
    }

    /// Puts the worst first.
    pub(crate) fn sort(&mut self) {
        let worst_first = |diagnosis: &Diagnosis| std::cmp::Reverse(diagnosis.finding.severity);
        self.diagnoses.sort_by_key(worst_first);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn a_remedy_that_is_sql_or_a_command_is_told_as_such() {
        let mend = |remedy: &str| {
            let finding = Finding::new(Severity::Note, "code", "seen", "meaning", remedy);
            Diagnosis::from(finding).mend
        };
        for (remedy, expected) in [
            (
                "GRANT INSERT ON t TO r",
                Mend::Sql(vec!["GRANT INSERT ON t TO r;".to_owned()]),
            ),
            (
                "GRANT o TO r; GRANT CREATE ON SCHEMA s TO r",
                Mend::Sql(vec![
                    "GRANT o TO r;".to_owned(),
                    "GRANT CREATE ON SCHEMA s TO r;".to_owned(),
                ]),
            ),
            (
                "ALTER ROLE r BYPASSRLS, or ALTER TABLE t DISABLE ROW LEVEL SECURITY",
                Mend::Sql(vec!["ALTER ROLE r BYPASSRLS;".to_owned()]),
            ),
            (
                "have another role make them, or GRANT o TO r",
                Mend::Sql(vec!["GRANT o TO r;".to_owned()]),
            ),
            (
                "run `recsys-ingest migrate`, or start with --migrate-on-start true",
                Mend::Command("recsys-ingest migrate".to_owned()),
            ),
            ("raise max_connections, or lower --writers", Mend::Words),
        ] {
            assert_eq!(mend(remedy), expected, "{remedy}");
        }
    }
}
