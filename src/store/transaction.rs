//! Stores one batch in one transaction, whatever is in it.
//!
//! The straight way is BEGIN, COPY, an entry in the ledger, COMMIT, in three round
//! trips. Only when Postgres objects to a row does the careful way begin: ask
//! which rows are there already, copy the rest under savepoints, and set aside
//! the rows that cannot be stored. Either way all of the batch is settled by the
//! one COMMIT.

use std::time::Duration;

use tokio_postgres::Client;

use super::batch::{Batch, Settled};
use super::copy::Statements;
use super::error::{BadRow, Class, Trouble, limited};
use super::ledger::{Stream, Totals};
use super::quarantine;

/// A batch takes well under a second; a minute means that nobody is there.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// How to store a batch.
#[derive(Debug)]
pub(super) struct Plan<'p> {
    /// Ask first which rows are there already.
    pub(super) probe: bool,
    /// Rows that cannot be stored now, by their place in the batch.
    pub(super) held_back: Vec<(usize, BadRow)>,
    /// Whose stream the batch is a stretch of.
    pub(super) stream: &'p Stream,
}

/// Stores `batch` and says what became of its rows.
///
/// `outcome` is set before the COMMIT is sent: if the answer to that is lost,
/// the ledger tells whether it took effect, and `outcome` what it was. It stays
/// until another COMMIT is sent, because the first may still be under way: then
/// the ledger refuses our entry once it is through.
pub(super) async fn store(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    plan: Plan<'_>,
    outcome: &mut Option<Settled>,
) -> Result<(Settled, Totals), Trouble> {
    let held: Vec<usize> = plan.held_back.iter().map(|(at, _)| *at).collect();
    let mut settled = Settled {
        quarantined: plan.held_back,
        ..Settled::default()
    };
    let rows = candidates(batch, &held, &mut settled);
    let transaction = Transaction {
        client,
        statements,
        batch,
        stream: plan.stream,
    };
    let written = match plan.probe || !held.is_empty() {
        false => transaction.straight(&rows, &settled).await,
        true => transaction.by_steps(rows, plan.probe, &mut settled).await,
    };
    let entered = match written {
        Ok(entered) => entered,
        Err(trouble) if matches!(trouble.class(), Class::Duplicate | Class::BadRow(_)) => {
            execute(client, "roll back", "ROLLBACK").await?;
            settled.duplicates.clear();
            transaction.carefully(&held, &mut settled).await?
        }
        Err(trouble) => {
            // The error counts, not what becomes of a transaction that is lost anyway.
            // A connection that does not answer is given up once: no other statement follows.
            if !matches!(trouble, Trouble::TimedOut { .. }) {
                drop(execute(client, "roll back", "ROLLBACK").await);
            }
            return Err(trouble);
        }
    };
    let totals = entered.ok_or(Trouble::Twin)?;
    *outcome = Some(settled.clone());
    execute(client, "commit a batch", "COMMIT").await?;
    Ok((settled, totals))
}

/// The rows to be copied: not those that are held back, and of equal keys the
/// first; the others are duplicates.
fn candidates(batch: &Batch, held: &[usize], settled: &mut Settled) -> Vec<usize> {
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
struct Transaction<'w> {
    client: &'w Client,
    statements: &'w Statements,
    batch: &'w Batch,
    stream: &'w Stream,
}

/// What the ledger says with a batch entered; none if its stretch is settled already.
type Entered = Option<Totals>;

impl Transaction<'_> {
    /// Copies rows and enters the batch without waiting for an answer in between:
    /// to a server that is not on this machine, each wait is a round trip.
    async fn straight(self, rows: &[usize], settled: &Settled) -> Result<Entered, Trouble> {
        // If BEGIN were refused and the connection went on, each of the others
        // would be its own transaction. Rows before their entry: then the worst is
        // that they are written again and found to be there.
        let (begun, copied, entered) = tokio::join!(
            biased;
            execute(self.client, "begin a transaction", "BEGIN"),
            self.copy(rows),
            self.enter(settled),
        );
        begun?;
        // After a row that Postgres refuses, it refuses the entry as well.
        copied?;
        entered
    }

    /// The same for a batch with rows that may be there already, or cannot be
    /// stored now.
    async fn by_steps(
        self,
        mut rows: Vec<usize>,
        probe: bool,
        settled: &mut Settled,
    ) -> Result<Entered, Trouble> {
        execute(self.client, "begin a transaction", "BEGIN").await?;
        if probe {
            rows = self.leave_out_stored(rows, settled).await?;
        }
        self.copy(&rows).await?;
        self.set_aside_and_enter(settled).await
    }

    /// Settles every row, however bad some are.
    async fn carefully(self, held: &[usize], settled: &mut Settled) -> Result<Entered, Trouble> {
        let Self { client, batch, .. } = self;
        execute(client, "begin a transaction", "BEGIN").await?;
        let rows = candidates(batch, held, settled);
        let rows = self.leave_out_stored(rows, settled).await?;
        let mut spans = vec![rows];
        while let Some(rows) = spans.pop() {
            if rows.is_empty() {
                continue;
            }
            execute(client, "set a savepoint", "SAVEPOINT span").await?;
            let trouble = match self.copy(&rows).await {
                Ok(()) => {
                    execute(client, "release a savepoint", "RELEASE span").await?;
                    continue;
                }
                Err(trouble) => trouble,
            };
            let (bad, rows) = match trouble.class() {
                Class::BadRow(bad) => {
                    execute(client, "roll back to a savepoint", "ROLLBACK TO span").await?;
                    (bad, rows)
                }
                Class::Duplicate => {
                    execute(client, "roll back to a savepoint", "ROLLBACK TO span").await?;
                    // Another writer has stored some of these rows since we asked; by
                    // the time of the error it has committed, so asking again finds
                    // them. However often that happens, the span has fewer rows each time.
                    let asked = rows.len();
                    let rows = self.leave_out_stored(rows, settled).await?;
                    if rows.len() < asked {
                        spans.push(rows);
                        continue;
                    }
                    // Not the key, then, but a unique index of somebody else's.
                    (BadRow::of_duplicate(&trouble), rows)
                }
                _ => return Err(trouble),
            };
            match rows.as_slice() {
                [only] => settled.quarantined.push((*only, bad)),
                _ => spans.extend(isolate(rows, bad.line)),
            }
        }
        self.set_aside_and_enter(settled).await
    }

    /// Moves the rows that are stored already to the duplicates; returns the others.
    async fn leave_out_stored(
        self,
        rows: Vec<usize>,
        settled: &mut Settled,
    ) -> Result<Vec<usize>, Trouble> {
        let asking = self.statements.stored(self.client, self.batch, &rows);
        let stored = limited("look for duplicates", STATEMENT_LIMIT, asking).await?;
        let fresh = rows
            .into_iter()
            .filter(|at| stored.binary_search(at).is_err())
            .collect();
        settled.duplicates.extend(stored);
        Ok(fresh)
    }

    async fn copy(self, rows: &[usize]) -> Result<(), Trouble> {
        let copying = self.statements.copy(self.client, self.batch, rows);
        limited("copy a batch", STATEMENT_LIMIT, copying).await
    }

    async fn set_aside_and_enter(self, settled: &mut Settled) -> Result<Entered, Trouble> {
        settled.quarantined_before =
            quarantine::put(self.client, self.batch, &settled.quarantined).await?;
        self.enter(settled).await
    }

    async fn enter(self, settled: &Settled) -> Result<Entered, Trouble> {
        let entry = self.stream.enter(self.batch, settled);
        let entering = self.statements.enter(self.client, &entry);
        limited("enter a batch into the ledger", STATEMENT_LIMIT, entering).await
    }
}

/// Splits rows around the bad one: at the line that Postgres names, which is
/// three pieces, or else in the middle. The first piece comes last, to be taken first.
fn isolate(mut rows: Vec<usize>, line: Option<usize>) -> Vec<Vec<usize>> {
    match line {
        Some(line) if (1..=rows.len()).contains(&line) => {
            let after = rows.split_off(line);
            let bad = rows.split_off(line - 1);
            vec![after, bad, rows]
        }
        _ => {
            let after = rows.split_off(rows.len() / 2);
            vec![after, rows]
        }
    }
}

async fn execute(client: &Client, doing: &'static str, sql: &str) -> Result<(), Trouble> {
    limited(doing, STATEMENT_LIMIT, client.batch_execute(sql)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(rows: usize, line: Option<usize>) -> Vec<Vec<usize>> {
        let mut pieces = isolate((0..rows).collect(), line);
        pieces.reverse();
        pieces
    }

    #[test]
    fn a_bad_row_is_split_off_at_its_line_or_by_halves() {
        assert_eq!(pieces(4, Some(3)), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(pieces(4, Some(1)), [vec![], vec![0], vec![1, 2, 3]]);
        assert_eq!(pieces(4, None), [vec![0, 1], vec![2, 3]]);
        // A line that cannot be is as good as none.
        assert_eq!(pieces(3, Some(9)), [vec![0], vec![1, 2]]);
    }
}
