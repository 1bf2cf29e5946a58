//! Why a batch could not be stored, and what that means for it.
//!
//! The one place where retries are decided.

use tokio_postgres::error::DbError;

use crate::accounts::ledger::Holder;
use crate::event::table::Table;
use crate::partitions::error as partitions;
use crate::postgres::error::{self as postgres, describe};
use crate::postgres::sqlstate::{Cause, ends_connection, is_raised};

/// What to do with a batch after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Postgres is away or busy: keep the batch, back off, try again.
    Away,
    /// A partition is missing: make it, try again.
    NoPartition,
    /// A row is stored already: find out which, leave them out.
    Duplicate,
    /// A row may be at fault: find it, set it aside.
    RejectedRow(RejectedRow),
    /// Rows are refused, and none went through that would tell whether they or
    /// the table are at fault: try again with the rows behind them.
    Undecided,
    /// Something that an operator has to mend: grants, tables, passwords.
    Fault,
}

/// What Postgres said of a row that it refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedRow {
    /// The line of the COPY, from 1, where Postgres names it.
    pub line: Option<usize>,
    /// The five-character code.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// The column, where Postgres names it.
    pub column: Option<String>,
    /// The constraint, where Postgres names it.
    pub constraint: Option<String>,
    /// Whether the error itself speaks of a value of the row. Any other is the
    /// row's only if another row goes through.
    pub is_evident: bool,
}

impl RejectedRow {
    /// A row that violates a unique index which is not the key.
    pub(crate) fn of_duplicate(trouble: &Error) -> Self {
        match trouble {
            Error::Rows { source, table, .. } => source
                .as_db_error()
                .map(|db| Self::of(db, *table))
                .unwrap_or_default(),
            _ => Self::default(),
        }
    }

    fn of(db: &DbError, table: Table) -> Self {
        let code = db.code().code();
        // A column that no row carries is missing from all of them.
        let is_of_a_row = db
            .column()
            .is_none_or(|name| table.columns().iter().any(|column| column.name == name));
        Self {
            line: db
                .where_()
                .and_then(|context| copy_line(context, table.as_str())),
            sqlstate: code.to_owned(),
            message: db.message().to_owned(),
            column: db.column().map(str::to_owned),
            constraint: db.constraint().map(str::to_owned),
            is_evident: matches!(&code[..2], "22" | "23") && !is_raised(db) && is_of_a_row,
        }
    }
}

impl ErrorKind {
    /// The class's name in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            ErrorKind::Away => "away",
            ErrorKind::NoPartition => "no_partition",
            ErrorKind::Duplicate => "duplicate",
            ErrorKind::RejectedRow(_) => "bad_row",
            ErrorKind::Undecided => "undecided",
            ErrorKind::Fault => "fault",
        }
    }

    /// Classifies an error that came with rows of `table`, and has come back
    /// again and again if it `lasts`.
    fn of_rows(error: &tokio_postgres::Error, table: Table, lasts: bool) -> Self {
        let Some(db) = error.as_db_error() else {
            return ErrorKind::Away;
        };
        if ends_connection(db) {
            return ErrorKind::Away;
        }
        let code = db.code().code();
        // The routine's name is never translated. Below a partition that is itself
        // partitioned, the table is that partition, and none is made there.
        if code == "23514"
            && db.routine() == Some("ExecFindPartition")
            && db.table() == Some(table.as_str())
            && !lasts
        {
            return ErrorKind::NoPartition;
        }
        match Cause::of_rows(db) {
            Cause::Row if code == "23505" && !is_raised(db) => ErrorKind::Duplicate,
            Cause::ServerThenRow if !lasts => ErrorKind::Away,
            Cause::Row | Cause::ServerThenRow => ErrorKind::RejectedRow(RejectedRow::of(db, table)),
            Cause::Server => ErrorKind::Away,
            Cause::Schema => ErrorKind::Fault,
        }
    }
}

/// Why an attempt to store a batch failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something failed that has nothing to do with rows.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// A partition cannot be read or made.
    #[error(transparent)]
    Partition(#[from] partitions::Error),
    /// Rows were refused: by the COPY, or by a check that was put off until later.
    #[error("cannot {doing}: {}", describe(source))]
    Rows {
        /// What we were doing.
        doing: &'static str,
        /// The rows' table.
        table: Table,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
    /// The COPY took fewer rows than it was given, without an error.
    #[error("{table} took {copied} of {given} rows")]
    LeftOut {
        /// The rows' table.
        table: Table,
        /// Rows that COPY counted.
        copied: usize,
        /// Rows that it was given.
        given: usize,
    },
    /// Too few rows were refused to blame the table, and none went through.
    #[error(
        "Postgres refuses {rows} rows for {table}, and none has gone through since: the next events tell whether the rows or the table are at fault; the last error was: {} ({})",
        last.message, last.sqlstate
    )]
    Undecided {
        /// The rows' table.
        table: Table,
        /// Rows that were refused one by one.
        rows: usize,
        /// What Postgres said of the last one.
        last: Box<RejectedRow>,
    },
    /// So many rows were refused, and none went through, that it is the table.
    #[error(
        "Postgres refuses every row for {table} ({rows} were tried one by one), so the table or a trigger on it is at fault, not a row: {} ({})",
        last.message, last.sqlstate
    )]
    EveryRow {
        /// The rows' table.
        table: Table,
        /// Rows that were refused one by one.
        rows: usize,
        /// What Postgres said of the last one.
        last: Box<RejectedRow>,
    },
    /// The ledger's row is not as it was when it was read; reading it again tells why.
    #[error("the ledger was changed since it was read")]
    Moved,
    /// A later opening of this spool holds the ledger's rows.
    #[error("fenced off by a later opening of this spool")]
    Fenced(Option<Holder>),
    /// A frame on disk is not rows.
    #[error("cannot read the rows of frame {sequence} back from the spool")]
    Frame {
        /// The frame's place in the spool.
        sequence: u64,
        /// What is wrong with it.
        source: crate::event::row::rows::NotRows,
    },
    /// The spool cannot be read.
    #[error("cannot read the spool")]
    Spool(#[source] anyhow::Error),
}

impl Error {
    /// What to do with the batch.
    pub fn class(&self) -> ErrorKind {
        match self {
            Error::Postgres(error) if error.is_away() => ErrorKind::Away,
            Error::Partition(error) if error.passes_by_itself() => ErrorKind::Away,
            Error::Postgres(_)
            | Error::Partition(_)
            | Error::Fenced(_)
            | Error::Frame { .. }
            | Error::Spool(_)
            | Error::EveryRow { .. } => ErrorKind::Fault,
            Error::Undecided { .. } => ErrorKind::Undecided,
            Error::LeftOut { .. } => ErrorKind::RejectedRow(RejectedRow::default()),
            Error::Moved => ErrorKind::Away,
            Error::Rows { source, table, .. } => ErrorKind::of_rows(source, *table, false),
        }
    }

    /// [`class`](Self::class) for an error that has come back again and again.
    pub(crate) fn class_if_it_lasts(&self, lasts: bool) -> ErrorKind {
        match self {
            Error::Rows { source, table, .. } => ErrorKind::of_rows(source, *table, lasts),
            _ => self.class(),
        }
    }

    /// Whether the server said no and goes on: the statement had no effect, for sure.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Error::Postgres(error) => error.is_refusal(),
            Error::Rows { source, .. } => {
                source.as_db_error().is_some_and(|db| !ends_connection(db))
            }
            _ => false,
        }
    }

    /// Whether a statement got no answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Error::Postgres(postgres::Error::TimedOut { .. }))
    }

    /// Whether rows from behind the batch may bring the decision.
    pub(crate) fn asks_for_more_rows(&self) -> bool {
        matches!(self, Error::Undecided { .. } | Error::EveryRow { .. })
    }
}

/// The line in "COPY interaction_events, line 12", which may follow the lines of
/// PL/pgSQL functions, and whose own text may hold anything: ours is the last one.
fn copy_line(context: &str, table: &str) -> Option<usize> {
    context.lines().rev().find_map(|text| {
        let rest = text.strip_prefix("COPY ")?.strip_prefix(table)?;
        let rest = rest.strip_prefix(", line ")?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (line, rest) = rest.split_at(digits);
        let is_whole = rest.is_empty() || rest.starts_with(',');
        is_whole.then(|| line.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_copy_is_read_from_the_context() {
        let line = |context: &str| copy_line(context, "interaction_events");
        assert_eq!(line("COPY interaction_events, line 12"), Some(12));
        assert_eq!(
            line("COPY interaction_events, line 7, column meta: \"x, line 9\""),
            Some(7)
        );
        // Functions and what they run come first, whatever they hold.
        let context = "PL/pgSQL function refuse() line 3 at RAISE\n\
                       SQL statement \"SELECT '\nCOPY interaction_events, line 9\n'\"\n\
                       COPY elsewhere, line 4\n\
                       COPY interaction_events, line 1234";
        assert_eq!(line(context), Some(1234));
        assert_eq!(line("COPY interaction_events_2026, line 9"), None);
        assert_eq!(line("SQL statement"), None);
        assert_eq!(line("COPY interaction_events, line "), None);
        assert_eq!(line("COPY interaction_events, line 9 lives"), None);
    }
}
