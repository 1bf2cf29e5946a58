//! Stores one batch in one transaction, whatever is in it.
//!
//! The straight way is BEGIN, COPY, an entry in the ledger, COMMIT, in three round
//! trips. Only when Postgres objects to a row, or takes fewer than it was given,
//! does the careful way begin: ask which rows are there already, copy the rest
//! under savepoints (`isolate`), and set aside the rows that cannot be stored.
//! Either way all of the batch is settled by the one COMMIT.
//!
//! Keeps one invariant: nothing is written outside the transaction that a BEGIN
//! of this file has begun. Sessions are read-only but for those: where a BEGIN is
//! lost or refused and its connection goes on, Postgres refuses the COPY and the
//! entry that were sent after it, so that neither commits by itself.

use std::time::Duration;

use tokio_postgres::Client;

use super::batch::{Batch, BatchResult};
use super::ledger::Claim;
use super::quarantine;
use super::statements::Statements;
use crate::accounts::ledger::{Stream, Totals};
use crate::postgres::error::{self as postgres, limited};
use crate::writer::error::{Error, ErrorKind, RejectedRow};

/// A batch takes well under a second; a minute means that nobody is there.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// For a session that writes nothing unless within [`BEGIN`].
pub(crate) const READ_ONLY_UNLESS_BEGUN: &str = "SET default_transaction_read_only = on";

/// READ COMMITTED whatever the database's default: what is read after waiting
/// for a row is newer than the wait.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE";

/// How to store a batch.
#[derive(Debug)]
pub(crate) struct Plan<'p> {
    /// Ask first which rows are there already.
    pub(crate) probe: bool,
    /// Rows that cannot be stored now, by their place in the batch.
    pub(crate) held_back: Vec<(usize, RejectedRow)>,
    /// Whose stream the batch is a stretch of.
    pub(crate) stream: &'p Stream,
    /// Whether errors that pass by themselves have not passed.
    pub(crate) lasts: bool,
    /// On what condition the batch is entered into the ledger.
    pub(crate) claim: Claim,
}

/// Stores `batch` and says what became of its rows.
///
/// `outcome` is set before the COMMIT is sent: if the answer to that is lost,
/// the ledger tells whether it took effect, and `outcome` what it was. It stays
/// until another COMMIT is sent, because the first may still be under way: then
/// the ledger refuses this entry once that one is through.
pub(crate) async fn store(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    plan: Plan<'_>,
    outcome: &mut Option<BatchResult>,
) -> Result<(BatchResult, Totals), Error> {
    let held: Vec<usize> = plan.held_back.iter().map(|(at, _)| *at).collect();
    let mut settled = BatchResult {
        quarantined: plan.held_back,
        ..BatchResult::default()
    };
    let rows = candidates(batch, &held, &mut settled);
    let transaction = Transaction {
        client,
        statements,
        batch,
        stream: plan.stream,
        lasts: plan.lasts,
        claim: plan.claim,
    };
    let written = match plan.probe || !held.is_empty() {
        false => transaction.fast_path(&rows, &settled).await,
        true => transaction.by_steps(rows, plan.probe, &mut settled).await,
    };
    let refused = match written {
        Ok(entered) => match transaction.commit(entered, &settled, outcome).await {
            Ok(totals) => return Ok((settled, totals)),
            // A check was put off until now. The transaction is over.
            Err(error) if transaction.is_about_rows(&error) => error,
            Err(error) => return Err(error),
        },
        Err(error) => error,
    };
    if !transaction.is_about_rows(&refused) {
        return Err(rolled_back(client, refused).await);
    }
    execute(client, "roll back", "ROLLBACK").await?;
    settled.duplicates.clear();
    match transaction.checked_path(&held, &mut settled).await {
        Ok(entered) => match transaction.commit(entered, &settled, outcome).await {
            Ok(totals) => Ok((settled, totals)),
            // Every check of every row has run, so this is about something else.
            Err(Error::Rows { doing, source, .. }) => {
                Err(postgres::Error::Statement { doing, source }.into())
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(rolled_back(client, error).await),
    }
}

/// Rolls back after an error, which counts, and not what becomes of a transaction
/// that is lost anyway. A connection that does not answer is given up once: no other
/// statement follows on it.
async fn rolled_back(client: &Client, error: Error) -> Error {
    if !error.is_timeout() {
        drop(execute(client, "roll back", "ROLLBACK").await);
    }
    error
}

/// The rows to be copied: not those that are held back, and of equal keys the
/// first; the others are duplicates.
fn candidates(batch: &Batch, held: &[usize], settled: &mut BatchResult) -> Vec<usize> {
    let (mut rows, mut repeats) = batch.split_repeats();
    if !held.is_empty() {
        // A repeat of a row that is held back is held back with it, as it has its time.
        rows.retain(|at| held.binary_search(at).is_err());
        repeats.retain(|at| held.binary_search(at).is_err());
    }
    settled.duplicates = repeats;
    rows
}

/// One batch on its way into a transaction, which is left open.
#[derive(Clone, Copy)]
pub(crate) struct Transaction<'w> {
    pub(crate) client: &'w Client,
    pub(crate) statements: &'w Statements,
    pub(crate) batch: &'w Batch,
    stream: &'w Stream,
    pub(crate) lasts: bool,
    claim: Claim,
}

/// What the ledger says with a batch entered; none if its row was changed since it was read.
type Entered = Option<Totals>;

impl Transaction<'_> {
    /// Copies rows and enters the batch without waiting for an answer in between:
    /// to a server that is not on this machine, each wait is a round trip.
    async fn fast_path(self, rows: &[usize], settled: &BatchResult) -> Result<Entered, Error> {
        let (begun, copied, entered) = tokio::join!(
            biased;
            execute(self.client, "begin a transaction", BEGIN),
            self.copy(rows),
            self.enter(settled),
        );
        begun?;
        // After a row that Postgres refuses, it refuses the entry as well. After one
        // that something left out it does not: the entry counts that row as stored.
        self.assert_all(copied?, rows)?;
        entered
    }

    /// The same for a batch with rows that may be there already, or cannot be
    /// stored now.
    async fn by_steps(
        self,
        mut rows: Vec<usize>,
        probe: bool,
        settled: &mut BatchResult,
    ) -> Result<Entered, Error> {
        execute(self.client, "begin a transaction", BEGIN).await?;
        if probe {
            rows = self.leave_out_stored(rows, settled).await?;
        }
        self.assert_all(self.copy(&rows).await?, &rows)?;
        self.set_aside_and_enter(settled).await
    }

    /// Settles every row, however bad some are.
    async fn checked_path(
        self,
        held: &[usize],
        settled: &mut BatchResult,
    ) -> Result<Entered, Error> {
        // Checks that were put off would fail at COMMIT, when nothing tells which row it was.
        execute(self.client, "begin a transaction", BEGIN).await?;
        let begin = "SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT span";
        execute(self.client, "begin a transaction", begin).await?;
        let rows = candidates(self.batch, held, settled);
        let rows = self.leave_out_stored(rows, settled).await?;
        self.isolate(rows, settled).await?;
        self.set_aside_and_enter(settled).await
    }

    /// Commits; leaves in `outcome` what is to be said if the answer is lost.
    async fn commit(
        self,
        entered: Entered,
        settled: &BatchResult,
        outcome: &mut Option<BatchResult>,
    ) -> Result<Totals, Error> {
        let totals = entered.ok_or(Error::Moved)?;
        *outcome = Some(settled.clone());
        let committed = self.execute_rows("commit a batch", "COMMIT").await;
        if committed.as_ref().is_err_and(Error::is_refusal) {
            *outcome = None;
        }
        committed.map(|()| totals)
    }

    /// Whether the careful way may settle what the fast one could not.
    fn is_about_rows(self, error: &Error) -> bool {
        let class = error.class_if_it_lasts(self.lasts);
        matches!(class, ErrorKind::Duplicate | ErrorKind::RejectedRow(_))
    }

    /// Fails if a trigger or the like left rows out.
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

    /// Moves the rows that are stored already to the duplicates; returns the others.
    pub(crate) async fn leave_out_stored(
        self,
        rows: Vec<usize>,
        settled: &mut BatchResult,
    ) -> Result<Vec<usize>, Error> {
        let asking = self.statements.stored(self.client, self.batch, &rows);
        let stored = limited("look for duplicates", STATEMENT_LIMIT, asking).await?;
        let fresh = rows
            .into_iter()
            .filter(|at| stored.binary_search(at).is_err())
            .collect();
        settled.duplicates.extend(stored);
        Ok(fresh)
    }

    /// Copies rows; returns how many Postgres counts.
    pub(crate) async fn copy(self, rows: &[usize]) -> Result<usize, Error> {
        self.copy_rows(None, rows.iter().map(|&at| self.batch.row(at)))
            .await
    }

    async fn set_aside_and_enter(self, settled: &mut BatchResult) -> Result<Entered, Error> {
        settled.quarantined_before =
            quarantine::put::put(self.client, self.batch, &settled.quarantined).await?;
        self.enter(settled).await
    }

    async fn enter(self, settled: &BatchResult) -> Result<Entered, Error> {
        let entry = self.stream.enter(self.claim, self.batch, settled);
        let entering = self.statements.enter(self.client, &entry);
        Ok(limited("enter a batch into the ledger", STATEMENT_LIMIT, entering).await?)
    }
}

pub(crate) async fn execute(client: &Client, doing: &'static str, sql: &str) -> Result<(), Error> {
    Ok(limited(doing, STATEMENT_LIMIT, client.batch_execute(sql)).await?)
}
