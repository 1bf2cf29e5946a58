//! Stores one batch in one transaction, whatever is in it.
//!
//! The straight way is BEGIN, COPY, COMMIT. Only when Postgres objects to a row
//! does the careful way begin: ask which rows are there already, copy the rest
//! under savepoints, and set aside the rows that cannot be stored. Either way
//! all of the batch is settled by the one COMMIT.

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
    execute(client, "begin a transaction", "BEGIN").await?;
    let rows = candidates(batch, &held, &mut settled);
    let fresh = if plan.probe {
        leave_out_stored(client, statements, batch, rows, &mut settled).await?
    } else {
        rows
    };
    match copy(client, statements, batch, &fresh).await {
        Ok(()) => {}
        Err(trouble) if matches!(trouble.class(), Class::Duplicate | Class::BadRow(_)) => {
            execute(client, "roll back", "ROLLBACK").await?;
            settled.duplicates.clear();
            execute(client, "begin a transaction", "BEGIN").await?;
            carefully(client, statements, batch, &held, &mut settled).await?;
        }
        Err(trouble) => {
            // The error counts, not what becomes of a transaction that is lost anyway.
            drop(execute(client, "roll back", "ROLLBACK").await);
            return Err(trouble);
        }
    }
    settled.quarantined_before = quarantine::put(client, batch, &settled.quarantined).await?;
    let entry = plan.stream.enter(batch, &settled);
    let totals = limited(
        "enter a batch into the ledger",
        STATEMENT_LIMIT,
        statements.enter(client, &entry),
    )
    .await?
    .ok_or(Trouble::Twin)?;
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

/// Settles every row within the open transaction, however bad some are.
async fn carefully(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    held: &[usize],
    settled: &mut Settled,
) -> Result<(), Trouble> {
    let rows = candidates(batch, held, settled);
    let rows = leave_out_stored(client, statements, batch, rows, settled).await?;
    let mut spans = vec![rows];
    while let Some(rows) = spans.pop() {
        if rows.is_empty() {
            continue;
        }
        execute(client, "set a savepoint", "SAVEPOINT span").await?;
        let trouble = match copy(client, statements, batch, &rows).await {
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
                let rows = leave_out_stored(client, statements, batch, rows, settled).await?;
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
    Ok(())
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

/// Moves the rows that are stored already to the duplicates; returns the others.
async fn leave_out_stored(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    rows: Vec<usize>,
    settled: &mut Settled,
) -> Result<Vec<usize>, Trouble> {
    let stored = limited(
        "look for duplicates",
        STATEMENT_LIMIT,
        statements.stored(client, batch, &rows),
    )
    .await?;
    let fresh = rows
        .into_iter()
        .filter(|at| stored.binary_search(at).is_err())
        .collect();
    settled.duplicates.extend(stored);
    Ok(fresh)
}

async fn copy(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    rows: &[usize],
) -> Result<(), Trouble> {
    limited(
        "copy a batch",
        STATEMENT_LIMIT,
        statements.copy(client, batch, rows),
    )
    .await
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
