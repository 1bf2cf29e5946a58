//! Why a batch could not be stored.
//!
//! Maps each error to the [`ErrorKind`] that decides how `lane` retries the batch. Only
//! [`Error::Moved`] and [`Error::Fenced`] are handled there before their kind is asked for.

use tokio_postgres::error::DbError;

use crate::accounts::ledger::Holder;
use crate::event::table::Table;
use crate::log::read::LogAway;
use crate::partitions::defaults::LEAVING;
use crate::partitions::error as partitions;
use crate::postgres::error::{self as postgres, describe};
use crate::postgres::sqlstate::{Cause, ends_connection, is_of_a_shard, is_raised};

/// What to do with a batch after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Postgres is unreachable or busy: keep the batch, back off, try again.
    Away,
    /// A partition is missing: create it, try again.
    NoPartition,
    /// A row is already stored: find out which, leave it out.
    Duplicate,
    /// A row may be at fault: find it, quarantine it.
    RejectedRow(RejectedRow),
    /// Rows are refused, and no row was stored that would show whether they or the table are at
    /// fault: try again with the rows that follow.
    Undecided,
    /// An operator has to act: grants, tables, passwords.
    Fault,
}

/// Postgres's error for a row that it refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedRow {
    /// The line of the COPY, from 1, if Postgres names it.
    pub line: Option<usize>,
    /// The five-character SQLSTATE.
    pub sqlstate: String,
    pub message: String,
    /// The column, if Postgres names it.
    pub column: Option<String>,
    /// The constraint, if Postgres names it.
    pub constraint: Option<String>,
    /// Whether the error itself is about a value of the row. Any other error is blamed on the row
    /// only if another row can be stored.
    pub is_evident: bool,
    /// Whether the error may as well mean a duplicate, a missing partition, or a server that is
    /// busy: it comes from a shard of a distributed table.
    pub hides_its_cause: bool,
}

impl RejectedRow {
    /// A row that violates a unique index other than the key.
    pub(crate) fn of_duplicate(error: &Error) -> Self {
        match error {
            Error::Rows { source, table, .. } => source
                .as_db_error()
                .map(|db| Self::of(db, *table))
                .unwrap_or_default(),
            _ => Self::default(),
        }
    }

    fn of(db: &DbError, table: Table) -> Self {
        let code = db.code().code();
        // A column that our rows do not carry is missing from every row.
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
            hides_its_cause: is_of_a_shard(db),
        }
    }
}

impl ErrorKind {
    /// The kind's name in metrics.
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

    /// Classifies an error of a statement with rows of `table`. `lasts`: the batch has failed
    /// several times in a row.
    fn of_rows(error: &tokio_postgres::Error, table: Table, lasts: bool) -> Self {
        let Some(db) = error.as_db_error() else {
            return ErrorKind::Away;
        };
        if ends_connection(db) {
            return ErrorKind::Away;
        }
        let code = db.code().code();
        // The routine's name is never translated. In a partition that is itself partitioned, the
        // error names that partition as the table; none is created there.
        if code == "23514"
            && db.routine() == Some("ExecFindPartition")
            && db.table() == Some(table.as_str())
            && !lasts
        {
            return ErrorKind::NoPartition;
        }
        // Its range is being moved out of the DEFAULT partition: it waits for its own one.
        if code == "23514" && db.constraint() == Some(LEAVING) && !lasts {
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
    /// A failure that is not about rows.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// A partition cannot be read or created.
    #[error(transparent)]
    Partition(#[from] partitions::Error),
    /// Postgres refused rows: in the COPY, or in a deferred constraint.
    #[error("cannot {doing}: {}", describe(source))]
    Rows {
        /// The operation that failed.
        doing: &'static str,
        table: Table,
        source: tokio_postgres::Error,
    },
    /// The COPY stored fewer rows than it was given, without an error.
    #[error("{table} took {copied} of {given} rows")]
    LeftOut {
        table: Table,
        /// Rows that COPY counted.
        copied: usize,
        /// Rows that it was given.
        given: usize,
    },
    /// Rows were refused and none was stored, but too few to blame the table.
    #[error(
        "Postgres refuses {rows} rows for {table}, and none has gone through since: the next events tell whether the rows or the table are at fault; the last error was: {} ({})",
        last.message, last.sqlstate
    )]
    Undecided {
        table: Table,
        /// Rows that were refused one by one.
        rows: usize,
        /// Postgres's error for the last row.
        last: Box<RejectedRow>,
    },
    /// No row was stored, and enough were refused to blame the table.
    #[error(
        "Postgres refuses every row for {table} ({rows} were tried one by one), so the table or a trigger on it is at fault, not a row: {} ({})",
        last.message, last.sqlstate
    )]
    EveryRow {
        table: Table,
        /// Rows that were refused one by one.
        rows: usize,
        /// Postgres's error for the last row.
        last: Box<RejectedRow>,
    },
    /// The ledger row has changed since it was read. Reading it again shows why.
    #[error("the ledger was changed since it was read")]
    Moved,
    /// A later opening of this log holds the ledger rows.
    #[error("fenced off by a later opening of this log")]
    Fenced(Option<Holder>),
    /// The payload of a record on disk is not rows.
    #[error("cannot read the rows of record {sequence} back from the log")]
    Unreadable {
        sequence: u64,
        /// What is wrong with it.
        source: crate::event::row::rows::NotRows,
    },
    /// A record holds other rows than its header counts.
    #[error("record {sequence} of the log counts {items} rows and holds {rows}")]
    Miscounted {
        sequence: u64,
        /// Rows according to its header.
        items: u32,
        /// Rows in its payload.
        rows: usize,
    },
    /// The log cannot be read.
    #[error("cannot read the log")]
    Log(#[source] anyhow::Error),
}

impl Error {
    /// What to do with the batch.
    pub fn class(&self) -> ErrorKind {
        match self {
            Error::Postgres(error) if error.is_away() => ErrorKind::Away,
            Error::Partition(error) if error.passes_by_itself() => ErrorKind::Away,
            Error::Log(error) if error.is::<LogAway>() => ErrorKind::Away,
            Error::Postgres(_)
            | Error::Partition(_)
            | Error::Fenced(_)
            | Error::Unreadable { .. }
            | Error::Miscounted { .. }
            | Error::Log(_)
            | Error::EveryRow { .. } => ErrorKind::Fault,
            Error::Undecided { .. } => ErrorKind::Undecided,
            Error::LeftOut { .. } => ErrorKind::RejectedRow(RejectedRow::default()),
            Error::Moved => ErrorKind::Away,
            Error::Rows { source, table, .. } => ErrorKind::of_rows(source, *table, false),
        }
    }

    /// [`class`](Self::class), for a batch that has failed several times in a row if it `lasts`.
    pub(crate) fn class_if_it_lasts(&self, lasts: bool) -> ErrorKind {
        match self {
            Error::Rows { source, table, .. } => ErrorKind::of_rows(source, *table, lasts),
            _ => self.class(),
        }
    }

    /// Whether Postgres refused the statement and the session goes on: the statement had no effect.
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
        match self {
            Error::Postgres(error) => error.is_timeout(),
            Error::Partition(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether a partition that was there may be missing, as far as the error tells.
    pub(crate) fn may_lack_a_partition(&self) -> bool {
        match self.class() {
            ErrorKind::NoPartition => true,
            ErrorKind::RejectedRow(bad) => bad.hides_its_cause,
            _ => false,
        }
    }

    /// Whether the rows that follow the batch may decide what is at fault.
    pub(crate) fn asks_for_more_rows(&self) -> bool {
        matches!(self, Error::Undecided { .. } | Error::EveryRow { .. })
    }
}

/// The line in "COPY interaction_events, line 12". Lines of PL/pgSQL functions may come before it,
/// and they quote arbitrary text, so the last match is the right one.
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
    fn a_log_that_is_away_is_no_fault() {
        let away = anyhow::Error::new(std::fmt::Error).context(LogAway);
        let error = Error::Log(away.context("cannot read partition 3"));
        assert_eq!(error.class(), ErrorKind::Away);
        let error = Error::Log(anyhow::anyhow!("the topic is gone"));
        assert_eq!(error.class(), ErrorKind::Fault);
    }

    #[test]
    fn the_line_of_a_copy_is_read_from_the_context() {
        let line = |context: &str| copy_line(context, "interaction_events");
        assert_eq!(line("COPY interaction_events, line 12"), Some(12));
        assert_eq!(
            line("COPY interaction_events, line 7, column meta: \"x, line 9\""),
            Some(7)
        );
        // The context of functions and their statements comes first, with any text.
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
