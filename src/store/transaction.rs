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
use super::quarantine;

/// A batch takes well under a second; a minute means that nobody is there.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// How often one span may meet a duplicate after it was checked for them.
/// Another writer can slip in between, but hardly this often: what is left then
/// is a unique index of somebody else's.
const REPROBES_MAX: u32 = 4;

/// Rows that are copied together, and how often they were checked.
struct Span {
    rows: Vec<usize>,
    probes: u32,
}

/// Stores `batch`; with `probe`, asks first which rows are there already.
pub(super) async fn store(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
    probe: bool,
) -> Result<Settled, Trouble> {
    let (rows, repeats) = batch.split_repeats();
    let mut settled = Settled {
        duplicates: repeats,
        quarantined: Vec::new(),
    };
    execute(client, "begin a transaction", "BEGIN").await?;
    let fresh = if probe {
        leave_out_stored(client, statements, batch, rows, &mut settled).await?
    } else {
        rows
    };
    match copy(client, statements, batch, &fresh).await {
        Ok(()) => {}
        Err(trouble) if matches!(trouble.class(), Class::Duplicate | Class::BadRow(_)) => {
            execute(client, "roll back", "ROLLBACK").await?;
            settled = carefully(client, statements, batch).await?;
        }
        Err(trouble) => {
            // The error counts, not what becomes of a transaction that is lost anyway.
            drop(execute(client, "roll back", "ROLLBACK").await);
            return Err(trouble);
        }
    }
    execute(client, "commit a batch", "COMMIT").await?;
    Ok(settled)
}

/// Opens a transaction and settles every row in it, leaving the COMMIT.
async fn carefully(
    client: &Client,
    statements: &Statements,
    batch: &Batch,
) -> Result<Settled, Trouble> {
    let (rows, repeats) = batch.split_repeats();
    let mut settled = Settled {
        duplicates: repeats,
        quarantined: Vec::new(),
    };
    execute(client, "begin a transaction", "BEGIN").await?;
    let rows = leave_out_stored(client, statements, batch, rows, &mut settled).await?;
    let mut spans = vec![Span { rows, probes: 1 }];
    while let Some(span) = spans.pop() {
        if span.rows.is_empty() {
            continue;
        }
        execute(client, "set a savepoint", "SAVEPOINT span").await?;
        let trouble = match copy(client, statements, batch, &span.rows).await {
            Ok(()) => {
                execute(client, "release a savepoint", "RELEASE span").await?;
                continue;
            }
            Err(trouble) => trouble,
        };
        let bad = match trouble.class() {
            Class::Duplicate if span.probes <= REPROBES_MAX => None,
            Class::Duplicate => Some(BadRow::of_duplicate(&trouble)),
            Class::BadRow(bad) => Some(bad),
            _ => return Err(trouble),
        };
        execute(client, "roll back to a savepoint", "ROLLBACK TO span").await?;
        match bad {
            None => {
                let rows =
                    leave_out_stored(client, statements, batch, span.rows, &mut settled).await?;
                spans.push(Span {
                    rows,
                    probes: span.probes + 1,
                });
            }
            Some(bad) if span.rows.len() == 1 => settled.quarantined.push((span.rows[0], bad)),
            Some(bad) => spans.extend(isolate(span, bad.line)),
        }
    }
    settled.duplicates.sort_unstable();
    quarantine::put(client, batch, &settled.quarantined).await?;
    Ok(settled)
}

/// Splits a span around its bad row: at the line that Postgres names, which is
/// three pieces, or else in the middle.
fn isolate(mut span: Span, line: Option<usize>) -> Vec<Span> {
    let probes = span.probes;
    let piece = |rows| Span { rows, probes };
    match line {
        Some(line) if (1..=span.rows.len()).contains(&line) => {
            let after = span.rows.split_off(line);
            let bad = span.rows.split_off(line - 1);
            vec![piece(after), piece(bad), piece(span.rows)]
        }
        _ => {
            let after = span.rows.split_off(span.rows.len() / 2);
            vec![piece(after), piece(span.rows)]
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
        let span = Span {
            rows: (0..rows).collect(),
            probes: 1,
        };
        let mut pieces: Vec<_> = isolate(span, line)
            .into_iter()
            .map(|span| span.rows)
            .collect();
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
