//! What an error from Postgres means for the batch that met it (design §6).
//!
//! The one place where SQLSTATEs are read and retries are decided. An error that
//! came with rows may be the fault of one of them; the same code from any other
//! statement may not.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity};

use super::connect::error::ConnectError;
use crate::accounts::ledger::Holder;
use crate::event::table::Table;
use crate::partitions;

/// What to do with a batch after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Postgres is away or busy: keep the batch, back off, try again.
    Away,
    /// A partition is missing: make it, try again.
    NoPartition,
    /// A row is stored already: find out which, leave them out.
    Duplicate,
    /// A row may be at fault: find it, set it aside.
    BadRow(BadRow),
    /// Rows are refused, and none went through that would tell whether they or
    /// the table are at fault: try again with the rows behind them.
    Undecided,
    /// Something that an operator has to mend: grants, tables, passwords.
    Fault,
}

/// What Postgres said of a row that it refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadRow {
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

impl BadRow {
    /// A row that violates a unique index which is not the key.
    pub(crate) fn of_duplicate(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Rows { source, table, .. } => source
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

/// Where the cause of an error can lie that came with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// In the server or its load: it passes.
    Server,
    /// In the server; if it lasts, in a row.
    ServerThenRow,
    /// In the session or in the shape of the table: every row meets it.
    Schema,
    /// In a row; if all fail, in the table.
    Row,
}

impl Cause {
    /// The table of SQLSTATEs, and of classes where a class has one cause.
    ///
    /// What is not listed can come from one row: a trigger may run anything, and
    /// may raise any code.
    fn of(code: &str) -> Self {
        match code {
            // lock_not_available: the holder lets go.
            "55P03" => Cause::Server,
            // A session that was ended for its age, or what such an end left behind.
            "25P02" | "25P03" | "25P04" => Cause::Server,
            // Its BEGIN was lost or refused, and what may not be without one was
            // refused after it; see `transaction`.
            "25006" => Cause::Server,
            // protocol_violation as an ERROR, invalid_binary_representation and
            // bad_copy_file_format: our bytes are of another type than a column.
            "08P01" | "22P03" | "22P04" => Cause::Schema,
            _ => match &code[..2] {
                // Transaction rollback, insufficient resources, system error.
                "40" | "53" | "58" => Cause::Server,
                // As an ERROR, 08 is the connection of a trigger to elsewhere, and 57
                // a statement that was cancelled: by an operator, or because it
                // takes too long.
                "08" | "57" => Cause::ServerThenRow,
                // Transaction state, prepared statements, authorization.
                "25" | "26" | "28" => Cause::Schema,
                _ => Cause::Row,
            },
        }
    }

    /// The cause of an error that came with rows.
    fn of_rows(db: &DbError) -> Self {
        match (Self::of(db.code().code()), is_raised(db)) {
            // A trigger may pass on what it caught, such as a deadlock.
            (Cause::Server, true) => Cause::ServerThenRow,
            (Cause::Schema, true) => Cause::Row,
            (cause, _) => cause,
        }
    }
}

/// Whether a PL/pgSQL function raised the error, with a code of its choice.
fn is_raised(db: &DbError) -> bool {
    db.routine() == Some("exec_stmt_raise")
}

/// Whether the server has ended the connection with this error, whatever its code.
fn ends_connection(db: &DbError) -> bool {
    matches!(
        db.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

impl Class {
    /// The class's name in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Class::Away => "away",
            Class::NoPartition => "no_partition",
            Class::Duplicate => "duplicate",
            Class::BadRow(_) => "bad_row",
            Class::Undecided => "undecided",
            Class::Fault => "fault",
        }
    }

    /// Classifies the error of a statement that carries no rows.
    pub fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Class::Away;
        };
        if ends_connection(db) {
            return Class::Away;
        }
        let code = db.code().code();
        match Cause::of(code) {
            Cause::Server | Cause::ServerThenRow => Class::Away,
            // An internal error may pass.
            Cause::Row if code.starts_with("XX") => Class::Away,
            Cause::Row | Cause::Schema => Class::Fault,
        }
    }

    /// Classifies an error that came with rows of `table`, and has come back
    /// again and again if it `lasts`.
    fn of_rows(error: &tokio_postgres::Error, table: Table, lasts: bool) -> Self {
        let Some(db) = error.as_db_error() else {
            return Class::Away;
        };
        if ends_connection(db) {
            return Class::Away;
        }
        let code = db.code().code();
        // The routine's name is never translated. Below a partition that is itself
        // partitioned, the table is that partition, and none is made there.
        if code == "23514"
            && db.routine() == Some("ExecFindPartition")
            && db.table() == Some(table.as_str())
            && !lasts
        {
            return Class::NoPartition;
        }
        match Cause::of_rows(db) {
            Cause::Row if code == "23505" && !is_raised(db) => Class::Duplicate,
            Cause::ServerThenRow if !lasts => Class::Away,
            Cause::Row | Cause::ServerThenRow => Class::BadRow(BadRow::of(db, table)),
            Cause::Server => Class::Away,
            Cause::Schema => Class::Fault,
        }
    }
}

/// Why an attempt to store a batch failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is a connection that cannot be set up.
    #[error("cannot set up the connection")]
    Session(#[source] anyhow::Error),
    /// There is a connection through which nothing can be stored.
    #[error(transparent)]
    Unfit(#[from] crate::finding::Finding),
    /// A partition cannot be read or made.
    #[error(transparent)]
    Partition(#[from] partitions::error::Error),
    /// The partition of these days is missing, and the role may not make it.
    #[error(
        "there is no partition for {range}, and the role may not make one: \
         make it, or give the role the right to"
    )]
    NoPartition {
        /// What it would hold.
        range: partitions::range::Range,
    },
    /// A statement failed.
    #[error("cannot {doing}: {}", describe(source))]
    Statement {
        /// What we were doing, as in "cannot copy a batch".
        doing: &'static str,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
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
        last: Box<BadRow>,
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
        last: Box<BadRow>,
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
    /// A statement took too long.
    #[error("gave up to {doing} after {seconds} s without an answer")]
    TimedOut {
        /// What we were doing.
        doing: &'static str,
        /// How long we waited.
        seconds: u64,
    },
}

impl Trouble {
    /// What to do with the batch.
    pub fn class(&self) -> Class {
        match self {
            Trouble::Connect(error) if error.is_away() => Class::Away,
            Trouble::Connect(_)
            | Trouble::Unfit(_)
            | Trouble::NoPartition { .. }
            | Trouble::Fenced(_)
            | Trouble::Frame { .. }
            | Trouble::Spool(_)
            | Trouble::EveryRow { .. } => Class::Fault,
            Trouble::Undecided { .. } => Class::Undecided,
            Trouble::LeftOut { .. } => Class::BadRow(BadRow::default()),
            Trouble::Session(_) | Trouble::Moved | Trouble::TimedOut { .. } => Class::Away,
            Trouble::Partition(partitions::error::Error::Postgres { source, .. }) => {
                match Class::of(source) {
                    Class::Away => Class::Away,
                    // No row was involved: what is refused is our own DDL.
                    _ => Class::Fault,
                }
            }
            Trouble::Partition(partitions::error::Error::NotPartitioned { .. }) => Class::Fault,
            Trouble::Partition(_) => Class::Away,
            Trouble::Statement { source, .. } => Class::of(source),
            Trouble::Rows { source, table, .. } => Class::of_rows(source, *table, false),
        }
    }

    /// [`class`](Self::class) for an error that has come back again and again.
    pub(crate) fn class_if_it_lasts(&self, lasts: bool) -> Class {
        match self {
            Trouble::Rows { source, table, .. } => Class::of_rows(source, *table, lasts),
            _ => self.class(),
        }
    }

    /// Whether the server said no and goes on: the statement had no effect, for sure.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Trouble::Statement { source, .. } | Trouble::Rows { source, .. } => {
                source.as_db_error().is_some_and(|db| !ends_connection(db))
            }
            _ => false,
        }
    }

    /// Whether rows from behind the batch may bring the decision.
    pub(crate) fn asks_for_more_rows(&self) -> bool {
        matches!(self, Trouble::Undecided { .. } | Trouble::EveryRow { .. })
    }
}

/// Bounds one statement: `statement_timeout` does not run while a COPY waits
/// for us, nor while nobody answers.
pub(crate) async fn limited<T>(
    doing: &'static str,
    limit: Duration,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, statement).await {
        Ok(result) => result.map_err(|source| Trouble::Statement { doing, source }),
        Err(_) => Err(Trouble::TimedOut {
            doing,
            seconds: limit.as_secs(),
        }),
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

/// An error with all its causes in one line, for logs.
pub struct Chain<'e>(pub &'e (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// An error of Postgres in one line: the server's words, without the library's.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let mut text = format!("{} ({})", db.message(), db.code().code());
            if let Some(detail) = db.detail() {
                text.push_str(": ");
                text.push_str(detail);
            }
            text
        }
        None => match error.source() {
            Some(_) => Chain(error).to_string(),
            None => error.to_string(),
        },
    }
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

    #[test]
    fn only_servers_sessions_and_shapes_are_not_judged_by_rows() {
        for code in [
            "21000", "22012", "23514", "0A000", "2F005", "38000", "39000", "42501", "44000",
            "54000", "55000", "P0001", "XX000", "XX001", "ZZ999",
        ] {
            assert_eq!(Cause::of(code), Cause::Row, "{code}");
        }
        for code in [
            "25006", "25P02", "25P04", "40001", "40P01", "53100", "53300", "55P03", "58030",
        ] {
            assert_eq!(Cause::of(code), Cause::Server, "{code}");
        }
        for code in ["08006", "57014", "57P01"] {
            assert_eq!(Cause::of(code), Cause::ServerThenRow, "{code}");
        }
        for code in ["08P01", "22P03", "25001", "26000", "28000"] {
            assert_eq!(Cause::of(code), Cause::Schema, "{code}");
        }
    }
}
