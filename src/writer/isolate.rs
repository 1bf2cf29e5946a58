//! Finds the rows that Postgres refuses, and decides whether they or the table are at fault.
//!
//! Invariant: a row with an error is quarantined only if another row was stored in the same
//! transaction, if the table still takes another row, or if the error itself is about a value of
//! the row. Otherwise the batch is undecided and nothing is quarantined.
//!
//! An error of a shard of a distributed table hides its cause: duplicates are asked for first, and a
//! row that fails alone is bad only if the batch has failed several times in a row.
//!
//! Rows are copied in spans under a savepoint, and a span that fails is split. After a failure at
//! line `n` a span has at most `2n` rows (and at least a few); each span that passes
//! doubles the limit. So the cost grows with the number of rejected rows, not with that number
//! times the batch.

pub(crate) mod savepoint;
pub(crate) mod spans;
pub(crate) mod table;

use super::batch::BatchResult;
use super::quarantine::left_out;
use super::transaction::{STATEMENT_LIMIT, Transaction, execute};
use savepoint::Tidy;
use spans::Spans;
use table::RejectedRows;

use crate::postgres::error::limited;
use crate::writer::error::{Error, ErrorKind, RejectedRow};

/// The result of a COPY without an error.
enum Copied {
    /// All rows are stored, except for these, which something in the database left out.
    Without(Vec<usize>),
    /// COPY counted fewer rows than it was given. These keys are missing, perhaps because a trigger
    /// changed them.
    Unclear(Vec<usize>),
}

impl Transaction<'_> {
    /// Copies `rows`, which are not stored yet, and quarantines those that Postgres refuses. The
    /// transaction is open, has the savepoint `span`, and defers no constraint.
    pub(crate) async fn isolate(
        self,
        rows: Vec<usize>,
        result: &mut BatchResult,
    ) -> Result<(), Error> {
        let mut spans = Spans::of(rows);
        let mut refused = RejectedRows::default();
        let mut passed = false;
        let mut tidy = Tidy::Nothing;
        while let Some(rows) = spans.next() {
            let copied = self.copy_span(tidy, &rows).await;
            tidy = Tidy::Undo;
            match copied {
                Ok(Copied::Without(missing)) => {
                    tidy = Tidy::Keep;
                    passed |= missing.len() < rows.len();
                    result.stored += rows.len() - missing.len();
                    let missing = missing.into_iter().map(|at| (at, left_out()));
                    result.quarantined.extend(missing);
                    spans.grow();
                }
                Ok(Copied::Unclear(missing)) if missing.len() == rows.len() => {
                    spans.split(rows, None);
                }
                Ok(Copied::Unclear(missing)) => {
                    let is_there = |at: &usize| missing.binary_search(at).is_err();
                    let there = rows.into_iter().filter(is_there).collect();
                    spans.stack.extend([missing, there]);
                }
                Err(error) => match error.class_if_it_lasts(self.lasts) {
                    ErrorKind::RejectedRow(bad) if !bad.hides_its_cause => {
                        refused.0.extend(spans.narrow(rows, bad));
                    }
                    kind @ (ErrorKind::Duplicate | ErrorKind::RejectedRow(_)) => {
                        self.tidy(&mut tidy).await?;
                        // Another writer has stored some of these rows since the last check. It had
                        // committed by the time of the error, so checking again finds them. This
                        // ends: the span gets shorter each time.
                        let asked = rows.len();
                        let rows = self.leave_out_stored(rows, result).await?;
                        if rows.len() < asked {
                            spans.stack.push(rows);
                            continue;
                        }
                        match kind {
                            // The row, its partition or the shard: only the row's fault lasts.
                            ErrorKind::RejectedRow(_) if rows.len() == 1 && !self.lasts => {
                                return Err(error);
                            }
                            ErrorKind::RejectedRow(bad) => {
                                refused.0.extend(spans.narrow(rows, bad));
                            }
                            // Then it is not the key, but a unique index that an operator added.
                            _ => {
                                let bad = RejectedRow::of_duplicate(&error);
                                result.quarantined.extend(spans.narrow(rows, bad));
                            }
                        }
                    }
                    _ => return Err(error),
                },
            }
            if !passed && refused.looks_like_the_table() {
                self.tidy(&mut tidy).await?;
                passed = self.takes_any(&spans.sample(), &refused).await?;
                if !passed {
                    return Err(self.every_row(refused));
                }
            }
        }
        self.tidy(&mut tidy).await?;
        if !passed {
            self.judge(&refused).await?;
        }
        result.quarantined.extend(refused.0);
        Ok(())
    }

    /// Copies rows and returns which of them are missing from the table.
    async fn copy_span(self, tidy: Tidy, rows: &[usize]) -> Result<Copied, Error> {
        let bytes = rows.iter().map(|&at| self.batch.row(at));
        let copied = self.copy_rows(tidy.sql(), bytes).await?;
        if copied == rows.len() {
            return Ok(Copied::Without(Vec::new()));
        }
        let missing = self.missing(rows).await?;
        // COPY counts a row that a trigger gave another key, though its own key is missing. It does
        // not count a row that a trigger stored by itself, though its key is there. If COPY counted
        // no row, no key was changed.
        Ok(match missing.is_empty() || copied == 0 || rows.len() == 1 {
            true => Copied::Without(missing),
            false => Copied::Unclear(missing),
        })
    }

    async fn tidy(self, tidy: &mut Tidy) -> Result<(), Error> {
        match std::mem::replace(tidy, Tidy::Nothing).sql() {
            Some(sql) => execute(self.client, "go on after a savepoint", sql).await,
            None => Ok(()),
        }
    }

    /// The rows that have no row with their key in the table.
    async fn missing(self, rows: &[usize]) -> Result<Vec<usize>, Error> {
        let asking = self.statements.stored(self.client, self.batch, rows);
        let stored = limited("look for rows that were left out", STATEMENT_LIMIT, asking).await?;
        let is_missing = |at: &usize| stored.binary_search(at).is_err();
        Ok(rows.iter().copied().filter(is_missing).collect())
    }
}
