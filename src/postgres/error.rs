//! Why an operation with Postgres failed.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use super::connect::error::ConnectError;
use super::sqlstate::{ends_connection, passes_by_itself};
use crate::finding::Finding;

/// Why a connection or a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection could not be set up.
    #[error("cannot set up the connection")]
    Session(#[source] anyhow::Error),
    /// The checks found that nothing can be stored through the connection.
    #[error(transparent)]
    Unfit(#[from] Finding),
    /// A statement failed.
    #[error("cannot {doing}: {}", describe(source))]
    Statement {
        /// The operation, as in "cannot copy a batch".
        doing: &'static str,
        source: tokio_postgres::Error,
    },
    /// A statement got no answer in time.
    #[error("gave up to {doing} after {seconds} s without an answer")]
    TimedOut { doing: &'static str, seconds: u64 },
}

impl Error {
    /// Whether the server is unreachable or busy. For any other error an operator has to act.
    pub fn is_away(&self) -> bool {
        match self {
            Error::Connect(error) => error.is_away(),
            Error::Unfit(_) => false,
            Error::Session(_) | Error::TimedOut { .. } => true,
            Error::Statement { source, .. } => passes_by_itself(source),
        }
    }

    /// Whether a statement got no answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Error::TimedOut { .. })
    }

    /// Whether Postgres refused the statement and the session goes on: the statement had no effect.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Error::Statement { source, .. } => {
                source.as_db_error().is_some_and(|db| !ends_connection(db))
            }
            _ => false,
        }
    }
}

/// Limits one statement at the client: `statement_timeout` does not run while a COPY waits for
/// data, and does not help if the server never answers.
pub(crate) async fn limited<T>(
    doing: &'static str,
    limit: Duration,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, statement).await {
        Ok(result) => result.map_err(|source| Error::Statement { doing, source }),
        Err(_) => Err(Error::TimedOut {
            doing,
            seconds: limit.as_secs(),
        }),
    }
}

/// An error with all its causes in one line, for logs.
pub struct ErrorChain<'e>(pub &'e (dyn std::error::Error + 'static));

impl fmt::Display for ErrorChain<'_> {
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

/// An error of Postgres in one line: the server's message, without the library's.
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
            Some(_) => ErrorChain(error).to_string(),
            None => error.to_string(),
        },
    }
}
