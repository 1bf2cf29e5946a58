//! What an error from Postgres means for the batch that met it (design §6).
//!
//! The one place where SQLSTATEs are read and retries are decided.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use super::connect::ConnectError;
use super::partition;

/// What to do with a batch after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Postgres is away or busy: keep the batch, back off, try again.
    Away,
    /// A partition is missing: make it, try again.
    NoPartition,
    /// A row is stored already: find out which, leave them out.
    Duplicate,
    /// A row cannot be stored: find it, set it aside.
    BadRow(BadRow),
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
}

impl BadRow {
    /// A row that violates a unique index which is not the key.
    pub(super) fn of_duplicate(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Statement { source, .. } => Self::of(source),
            _ => Self::default(),
        }
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::default();
        };
        Self {
            line: db.where_().and_then(copy_line),
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            column: db.column().map(str::to_owned),
            constraint: db.constraint().map(str::to_owned),
        }
    }
}

impl Class {
    /// The class's name in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Class::Away => "away",
            Class::NoPartition => "no_partition",
            Class::Duplicate => "duplicate",
            Class::BadRow(_) => "bad_row",
            Class::Fault => "fault",
        }
    }

    /// Classifies an error.
    pub fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Class::Away;
        };
        let code = db.code();
        match code.code() {
            // The message is English whatever the server's locale: the session
            // of a writer sets lc_messages where it may, and the routine's name
            // is never translated.
            "23514" if db.routine() == Some("ExecFindPartition") => Class::NoPartition,
            "23505" => Class::Duplicate,
            "40001" | "40P01" | "55P03" | "57014" => Class::Away,
            // A session that was ended for its age, or what such an end left behind.
            "25P02" | "25P03" | "25P04" => Class::Away,
            _ => match &code.code()[..2] {
                "08" | "53" | "57" | "58" | "XX" => Class::Away,
                "22" | "23" => Class::BadRow(BadRow::of(error)),
                _ => Class::Fault,
            },
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
    /// A partition cannot be read or made.
    #[error(transparent)]
    Partition(#[from] partition::Error),
    /// A statement failed.
    #[error("cannot {doing}: {}", describe(source))]
    Statement {
        /// What we were doing, as in "cannot copy a batch".
        doing: &'static str,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
    /// The stream was settled further by somebody else.
    #[error(
        "another process stores the events of this spool: is the spool directory a copy? stop one of them"
    )]
    Twin,
    /// A frame on disk is not rows.
    #[error("cannot read the rows of frame {sequence} back from the spool")]
    Frame {
        /// The frame's place in the spool.
        sequence: u64,
        /// What is wrong with it.
        source: crate::event::row::NotRows,
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
            Trouble::Connect(_) | Trouble::Twin | Trouble::Frame { .. } | Trouble::Spool(_) => {
                Class::Fault
            }
            Trouble::Session(_) | Trouble::TimedOut { .. } => Class::Away,
            Trouble::Partition(partition::Error::Postgres { source, .. }) => {
                match Class::of(source) {
                    Class::Away => Class::Away,
                    // No row was involved: what is refused is our own DDL.
                    _ => Class::Fault,
                }
            }
            Trouble::Partition(partition::Error::NotPartitioned { .. }) => Class::Fault,
            Trouble::Partition(_) => Class::Away,
            Trouble::Statement { source, .. } => Class::of(source),
        }
    }
}

/// Bounds one statement: `statement_timeout` does not run while a COPY waits
/// for us, nor while nobody answers.
pub(super) async fn limited<T>(
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

/// The line in "COPY interaction_events, line 12, column value: …".
fn copy_line(context: &str) -> Option<usize> {
    let rest = context.strip_prefix("COPY ")?.split_once(", line ")?.1;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
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
        assert_eq!(copy_line("COPY interaction_events, line 12"), Some(12));
        assert_eq!(
            copy_line("COPY exposure_events, line 7, column meta: \"x, line 9\""),
            Some(7)
        );
        assert_eq!(copy_line("SQL statement"), None);
        assert_eq!(copy_line("COPY t, line "), None);
    }
}
