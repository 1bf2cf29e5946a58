//! A finding: what a check saw, what it means, what to do.

use std::fmt;

use serde::Serialize;

use crate::event::table::Table;

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; everything works.
    Note,
    /// The service works, with a limit.
    Degraded,
    /// Events cannot be stored.
    Fault,
}

impl Severity {
    /// The severity's name in metrics and responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Degraded => "degraded",
            Severity::Fault => "fault",
        }
    }
}

/// A finding of the checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name for the kind of finding.
    pub code: &'static str,
    pub severity: Severity,
    /// The event table that it is about; `None` if it is about all.
    #[serde(skip)]
    pub table: Option<Table>,
    /// What was seen.
    pub seen: String,
    /// What that means for the service.
    pub meaning: String,
    /// What an operator can do.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        code: &'static str,
        seen: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            table: None,
            seen: seen.into(),
            meaning: meaning.into(),
            remedy: remedy.into(),
        }
    }

    /// The same finding, about one event table.
    pub(crate) fn about(self, table: Table) -> Self {
        Self {
            table: Some(table),
            ..self
        }
    }

    /// Whether it prevents rows of `table` from being stored.
    pub fn stops(&self, table: Table) -> bool {
        self.severity == Severity::Fault && self.table.is_none_or(|about| about == table)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.seen, self.meaning, self.remedy)
    }
}

impl std::error::Error for Finding {}
