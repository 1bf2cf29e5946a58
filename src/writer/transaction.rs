//! Stores one batch in one transaction.
//!
//! The fast path is BEGIN, COPY, the ledger update and COMMIT, in three round trips. The checked
//! path takes them one by one, for rows that may be stored already or cannot be stored now. If
//! Postgres refuses a row or stores fewer than it was given, the isolating path follows: find the
//! rows that are already stored, copy the rest under savepoints (`isolate`), and quarantine the rows
//! that cannot be stored. On each path one COMMIT decides the whole batch.
//!
//! Invariant: the ledger update is sent only with a result for each row of the batch, and COPY has
//! counted the rows that the result counts as stored before COMMIT is sent.
//!
//! Invariant: nothing is written outside a transaction that [`BEGIN`] has opened. The session is
//! read-only by default. If a BEGIN is lost or refused and the connection goes on, Postgres refuses
//! the COPY and the ledger update sent after it, so neither commits alone.

use std::time::Duration;

use tokio_postgres::Client;

use super::batch::{Batch, BatchResult};
use super::ledger::Claim;
use super::quarantine;
use super::statements::Statements;
use crate::accounts::ledger::{Stream, Totals};
use crate::accounts::removed::{self, Kind, Reason};
use crate::postgres::error::{self as postgres, limited};
use crate::writer::error::{Error, ErrorKind, RejectedRow};

/// A batch takes well under a second. After a minute the connection is dead.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Makes a session read-only outside of [`BEGIN`].
pub(crate) const READ_ONLY_UNLESS_BEGUN: &str = "SET default_transaction_read_only = on";

/// READ COMMITTED, not the database's default: a read after a wait for a row lock sees the newest
/// row.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE";

/// How to store a batch.
#[derive(Debug)]
pub(crate) struct Plan<'p> {
    /// Look for rows that are stored already before the COPY.
    pub(crate) checks_duplicates: bool,
    /// Rows that cannot be stored now, by their index in the batch.
    pub(crate) held_back: Vec<(usize, RejectedRow)>,
    /// Rows to leave out, as their users were erased, by their index in the batch.
    pub(crate) erased: Vec<usize>,
    pub(crate) stream: &'p Stream,
    /// Whether the batch has failed several times in a row.
    pub(crate) lasts: bool,
    /// The condition for entering the batch into the ledger.
    pub(crate) claim: Claim,
}

/// Stores `batch` and returns the result of its rows.
///
/// `unanswered` is set before the COMMIT is sent. If the answer is lost, the ledger shows whether the
/// COMMIT took effect, and `unanswered` has its result. It stays set until another COMMIT is sent,
/// because the first may still be under way: once it has taken effect, the ledger refuses the
/// second update.
pub(crate) async fn store(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    plan: Plan<'_>,
    unanswered: &mut Option<BatchResult>,
) -> Result<(BatchResult, Totals), Error> {
    let held = plan.held_back.iter().map(|(at, _)| *at);
    let mut held: Vec<usize> = held.chain(plan.erased.iter().copied()).collect();
    held.sort_unstable();
    let mut result = BatchResult {
        quarantined: plan.held_back,
        erased: plan.erased,
        ..BatchResult::default()
    };
    let rows = candidates(batch, &held, &mut result);
    // Unless COPY counts exactly these rows, nothing is committed.
    result.stored = rows.len();
    let transaction = Transaction {
        client,
        statements,
        batch,
        stream: plan.stream,
        lasts: plan.lasts,
        claim: plan.claim,
    };
    let written = match plan.checks_duplicates || !held.is_empty() {
        false => transaction.fast_path(&rows, &result).await,
        true => {
            let checks_duplicates = plan.checks_duplicates;
            transaction
                .checked_path(rows, checks_duplicates, &mut result)
                .await
        }
    };
    let refused = match written {
        Ok(entered) => match transaction.commit(entered, &result, unanswered).await {
            Ok(totals) => return Ok((result, totals)),
            // A deferred constraint failed. The transaction is over.
            Err(error) if transaction.is_about_rows(&error) => error,
            Err(error) => return Err(error),
        },
        Err(error) => error,
    };
    if !transaction.is_about_rows(&refused) {
        return Err(rolled_back(client, refused).await);
    }
    execute(client, "roll back", "ROLLBACK").await?;
    (result.stored, result.duplicates) = (0, Vec::new());
    match transaction.isolating_path(&held, &mut result).await {
        Ok(entered) => match transaction.commit(entered, &result, unanswered).await {
            Ok(totals) => Ok((result, totals)),
            // No constraint is deferred here, so this is not about a row.
            Err(Error::Rows { doing, source, .. }) => {
                Err(postgres::Error::Statement { doing, source }.into())
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(rolled_back(client, error).await),
    }
}

/// Rolls back and returns the first error, not one of the ROLLBACK. After a timeout nothing more is
/// sent: the connection would only time out again.
async fn rolled_back(client: &Client, error: Error) -> Error {
    if !error.is_timeout() {
        drop(execute(client, "roll back", "ROLLBACK").await);
    }
    error
}

/// The rows to copy: without those that are held back, and only the first of equal keys. The
/// repeats are duplicates.
fn candidates(batch: &Batch, held: &[usize], result: &mut BatchResult) -> Vec<usize> {
    let (mut rows, mut repeats) = batch.split_repeats();
    if !held.is_empty() {
        // A repeat has the time of its first row, so it waits for a partition with it.
        rows.retain(|at| held.binary_search(at).is_err());
        repeats.retain(|at| held.binary_search(at).is_err());
    }
    assert!(
        rows.len() + repeats.len() + held.len() == batch.len(),
        "a row of a batch is neither copied nor a repeat nor held back"
    );
    result.duplicates = repeats;
    rows
}

/// One batch and its transaction, which these methods leave open.
#[derive(Clone, Copy)]
pub(crate) struct Transaction<'w> {
    pub(crate) client: &'w Client,
    pub(crate) statements: &'w Statements,
    pub(crate) batch: &'w Batch,
    stream: &'w Stream,
    pub(crate) lasts: bool,
    claim: Claim,
}

/// The stream's totals after the batch; `None` if the ledger row has changed since it was read.
type Entered = Option<Totals>;

impl Transaction<'_> {
    /// Copies rows and enters the batch without waiting for answers in between: each wait is a
    /// round trip to the server.
    async fn fast_path(self, rows: &[usize], result: &BatchResult) -> Result<Entered, Error> {
        let (begun, copied, entered) = tokio::join!(
            biased;
            execute(self.client, "begin a transaction", BEGIN),
            self.copy(rows),
            self.enter(result),
        );
        begun?;
        // If Postgres refuses a row, it also refuses the ledger update. If a trigger leaves a row
        // out, it does not, and the update counts that row as stored.
        self.assert_all(copied?, rows)?;
        entered
    }

    /// The fast path's statements one by one, for a batch with rows that may be stored already or
    /// cannot be stored now.
    async fn checked_path(
        self,
        mut rows: Vec<usize>,
        checks_duplicates: bool,
        result: &mut BatchResult,
    ) -> Result<Entered, Error> {
        execute(self.client, "begin a transaction", BEGIN).await?;
        if checks_duplicates {
            rows = self.leave_out_stored(rows, result).await?;
            result.stored = rows.len();
        }
        self.assert_all(self.copy(&rows).await?, &rows)?;
        self.set_aside_and_enter(result).await
    }

    /// Decides on every row, whichever are refused.
    async fn isolating_path(
        self,
        held: &[usize],
        result: &mut BatchResult,
    ) -> Result<Entered, Error> {
        // A deferred constraint would fail at COMMIT, without naming the row.
        execute(self.client, "begin a transaction", BEGIN).await?;
        let begin = "SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT span";
        execute(self.client, "begin a transaction", begin).await?;
        let rows = candidates(self.batch, held, result);
        let rows = self.leave_out_stored(rows, result).await?;
        self.isolate(rows, result).await?;
        self.set_aside_and_enter(result).await
    }

    /// Commits. Sets `unanswered` to the result, in case the answer is lost.
    async fn commit(
        self,
        entered: Entered,
        result: &BatchResult,
        unanswered: &mut Option<BatchResult>,
    ) -> Result<Totals, Error> {
        let totals = entered.ok_or(Error::Moved)?;
        assert!(
            totals.watermark == self.batch.last_sequence(),
            "the ledger's watermark is not the last record of the batch that it enters"
        );
        *unanswered = Some(result.clone());
        let committed = self.execute_rows("commit a batch", "COMMIT").await;
        if committed.as_ref().is_err_and(Error::is_refusal) {
            *unanswered = None;
        }
        committed.map(|()| totals)
    }

    /// Whether the checked path may store what failed.
    fn is_about_rows(self, error: &Error) -> bool {
        let class = error.class_if_it_lasts(self.lasts);
        matches!(class, ErrorKind::Duplicate | ErrorKind::RejectedRow(_))
    }

    /// Fails if something in the database left rows out.
    fn assert_all(self, copied: usize, rows: &[usize]) -> Result<(), Error> {
        match copied == rows.len() {
            true => Ok(()),
            false => Err(Error::LeftOut {
                table: self.batch.table(),
                copied,
                given: rows.len(),
            }),
        }
    }

    /// Moves the rows that are already stored to the duplicates; returns the others.
    pub(crate) async fn leave_out_stored(
        self,
        rows: Vec<usize>,
        result: &mut BatchResult,
    ) -> Result<Vec<usize>, Error> {
        let asking = self.statements.stored(self.client, self.batch, &rows);
        let stored = limited("look for duplicates", STATEMENT_LIMIT, asking).await?;
        let asked = rows.len();
        let fresh: Vec<usize> = rows
            .into_iter()
            .filter(|at| stored.binary_search(at).is_err())
            .collect();
        assert!(
            fresh.len() + stored.len() == asked,
            "Postgres names a stored row twice, or one that was not asked for"
        );
        result.duplicates.extend(stored);
        Ok(fresh)
    }

    /// Copies rows. Returns how many Postgres counts.
    pub(crate) async fn copy(self, rows: &[usize]) -> Result<usize, Error> {
        self.copy_rows(None, rows.iter().map(|&at| self.batch.row(at)))
            .await
    }

    /// Sends `first`, then copies rows. Returns how many rows Postgres counts.
    pub(crate) async fn copy_rows<'r>(
        self,
        first: Option<&str>,
        rows: impl Iterator<Item = &'r [u8]>,
    ) -> Result<usize, Error> {
        let doing = "copy a batch";
        let table = self.batch.table();
        let begin = async {
            let sink = self.statements.begin_copy(self.client).await;
            sink.map_err(|source| Error::from(postgres::Error::Statement { doing, source }))
        };
        let copying = async {
            let sink = match first {
                None => begin.await?,
                Some(sql) => {
                    let first = execute(self.client, "go on after a savepoint", sql);
                    let (tidied, sink) = tokio::join!(biased; first, begin);
                    tidied.and(sink)?
                }
            };
            let copied = crate::postgres::copy::send(sink, rows).await;
            copied.map_err(|source| Error::Rows {
                doing,
                table,
                source,
            })
        };
        match tokio::time::timeout(STATEMENT_LIMIT, copying).await {
            Ok(copied) => Ok(usize::try_from(copied?).unwrap_or(usize::MAX)),
            Err(_) => Err(Error::from(postgres::Error::TimedOut {
                doing,
                seconds: STATEMENT_LIMIT.as_secs(),
            })),
        }
    }

    /// Runs a statement that checks rows: its errors may be about them.
    pub(crate) async fn execute_rows(self, doing: &'static str, sql: &str) -> Result<(), Error> {
        let table = self.batch.table();
        execute(self.client, doing, sql)
            .await
            .map_err(|error| match error {
                Error::Postgres(postgres::Error::Statement { doing, source }) => Error::Rows {
                    doing,
                    table,
                    source,
                },
                error => error,
            })
    }

    async fn set_aside_and_enter(self, result: &mut BatchResult) -> Result<Entered, Error> {
        result.quarantined_before =
            quarantine::put::put(self.client, self.batch, &result.quarantined).await?;
        self.book_erased(result).await?;
        self.enter(result).await
    }

    /// Books the rows that are left out as removed: the ledger counts them as stored.
    async fn book_erased(self, result: &BatchResult) -> Result<(), Error> {
        for (tenant, rows) in self.batch.by_tenant(&result.erased) {
            let reason = Reason {
                table: self.batch.table().as_str(),
                kind: Kind::Erasure,
                words: "left out of a batch, of a user who was erased",
                tenant: Some(tenant),
            };
            let booking = removed::book(self.client, &reason, rows);
            limited("book erased rows", STATEMENT_LIMIT, booking).await?;
        }
        Ok(())
    }

    async fn enter(self, result: &BatchResult) -> Result<Entered, Error> {
        let entry = self.stream.enter(self.claim, self.batch, result);
        let entering = self.statements.enter(self.client, &entry);
        Ok(limited("enter a batch into the ledger", STATEMENT_LIMIT, entering).await?)
    }
}

pub(crate) async fn execute(client: &Client, doing: &'static str, sql: &str) -> Result<(), Error> {
    Ok(limited(doing, STATEMENT_LIMIT, client.batch_execute(sql)).await?)
}
