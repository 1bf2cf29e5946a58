//! Finds the rows that Postgres refuses, and decides whether they or the table are at fault.
//!
//! Invariant: a row with an error is quarantined only if another row was stored in the same
//! transaction, if the table still takes another row, or if the error itself is about a value of
//! the row. Otherwise the batch is undecided and nothing is quarantined.
//!
//! Rows are copied in spans under a savepoint, and a span that fails is split. After a failure at
//! line `n` a span has at most `2n` rows (and at least [`SPAN_ROWS_MIN`]); each span that passes
//! doubles the limit. So the cost grows with the number of rejected rows, not with that number
//! times the batch.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::event::row::Key;

use super::batch::BatchResult;
use super::quarantine::left_out;
use super::transaction::{STATEMENT_LIMIT, Transaction, execute};
use crate::postgres::copy::only_row;
use crate::postgres::error::{self as postgres, limited};
use crate::writer::error::{Error, ErrorKind, RejectedRow};

/// This many rows with one SQLSTATE, while no row is stored, suggest that the table is at fault.
const SCHEMA_ROWS: usize = 20;

/// The same for rows with different SQLSTATEs.
const SCHEMA_ROWS_ANY_WAY: usize = 100;

/// Rows from the rest of the batch that are tried before the table is blamed.
const SAMPLE_ROWS: usize = 20;

/// Below this length a span costs its round trips, not its rows.
const SPAN_ROWS_MIN: usize = 16;

/// Rows that still have to be copied.
#[derive(Debug)]
struct Spans {
    /// The next span is the last element.
    stack: Vec<Vec<usize>>,
    /// The maximum length of a span.
    rows_max: usize,
}

impl Spans {
    fn of(rows: Vec<usize>) -> Self {
        Self {
            stack: vec![rows],
            rows_max: usize::MAX,
        }
    }

    /// The next rows to try, at least one.
    fn next(&mut self) -> Option<Vec<usize>> {
        let mut span = self.stack.pop()?;
        while span.is_empty() {
            span = self.stack.pop()?;
        }
        if span.len() > self.rows_max {
            self.stack.push(span.split_off(self.rows_max));
        }
        Some(span)
    }

    /// Doubles the limit after a span that was stored.
    fn grow(&mut self) {
        self.rows_max = self.rows_max.saturating_mul(2);
    }

    /// Splits rows around the bad one: into three at the line that Postgres names, or else into
    /// halves.
    fn split(&mut self, mut rows: Vec<usize>, line: Option<usize>) {
        match line {
            Some(line) if (1..=rows.len()).contains(&line) => {
                self.rows_max = (2 * line).max(SPAN_ROWS_MIN);
                let after = rows.split_off(line);
                let bad = rows.split_off(line - 1);
                self.stack.extend([after, bad, rows]);
            }
            _ => {
                let after = rows.split_off(rows.len() / 2);
                self.stack.extend([after, rows]);
            }
        }
    }

    /// Narrows down which of `rows` is bad. Returns it once that is certain.
    fn narrow(&mut self, rows: Vec<usize>, bad: RejectedRow) -> Option<(usize, RejectedRow)> {
        match (rows.as_slice(), bad.line) {
            ([only], _) => Some((*only, bad)),
            // For an error about a value, the line that Postgres names is reliable.
            (all, Some(line)) if bad.is_evident && (1..=all.len()).contains(&line) => {
                let only = rows[line - 1];
                self.split(rows, bad.line);
                // The bad row is the middle one of the three pieces.
                let place = self.stack.len() - 2;
                self.stack[place].clear();
                Some((only, bad))
            }
            _ => {
                self.split(rows, bad.line);
                None
            }
        }
    }

    /// A random sample across the rows that still have to be copied. It differs each time, so that
    /// a row that passes is found in the end.
    fn sample(&self) -> Vec<usize> {
        let left: Vec<usize> = self.stack.concat();
        let count = left.len().min(SAMPLE_ROWS);
        let within =
            |n: usize| rand::random_range(n * left.len() / count..(n + 1) * left.len() / count);
        (0..count).map(|n| left[within(n)]).collect()
    }
}

/// Rows that were refused, before any was stored.
#[derive(Debug, Default)]
struct RejectedRows(Vec<(usize, RejectedRow)>);

impl RejectedRows {
    /// Whether there are enough of them to suspect the table.
    fn looks_like_the_table(&self) -> bool {
        let Some((_, last)) = self.0.last() else {
            return false;
        };
        let alike = self
            .0
            .iter()
            .filter(|(_, bad)| bad.sqlstate == last.sqlstate);
        self.0.len() >= SCHEMA_ROWS_ANY_WAY || alike.count() >= SCHEMA_ROWS
    }
}

/// The statement between two spans. It is sent with the next COPY, so that a span costs two round
/// trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tidy {
    /// The savepoint is fresh.
    Nothing,
    /// Keep the rows of the last span.
    Keep,
    /// Undo the last span, which failed.
    Undo,
}

impl Tidy {
    fn sql(self) -> Option<&'static str> {
        match self {
            Tidy::Nothing => None,
            Tidy::Keep => Some("RELEASE span; SAVEPOINT span"),
            // `ROLLBACK TO` keeps the savepoint.
            Tidy::Undo => Some("ROLLBACK TO span"),
        }
    }
}

/// The result of a COPY without an error.
enum Copied {
    /// All rows are stored, except for these, which something in the database left out.
    Without(Vec<usize>),
    /// COPY counted fewer rows than it was given. These keys are missing, perhaps because a trigger
    /// changed them.
    Unclear(Vec<usize>),
}

/// What a copy of a row that is already stored shows about the table.
enum Probed {
    /// The table takes it.
    Passes,
    /// The table refuses it with the same SQLSTATE.
    Refused,
    /// There is no such row, or the result proves nothing.
    Silent,
}

impl Transaction<'_> {
    /// Copies `rows`, which are not stored yet, and quarantines those that Postgres refuses. The
    /// transaction is open, has the savepoint `span`, and defers no constraint.
    pub(crate) async fn isolate(
        self,
        rows: Vec<usize>,
        settled: &mut BatchResult,
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
                    let missing = missing.into_iter().map(|at| (at, left_out()));
                    settled.quarantined.extend(missing);
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
                    ErrorKind::RejectedRow(bad) => refused.0.extend(spans.narrow(rows, bad)),
                    ErrorKind::Duplicate => {
                        self.tidy(&mut tidy).await?;
                        // Another writer has stored some of these rows since the last check. It had
                        // committed by the time of the error, so checking again finds them. This
                        // ends: the span gets shorter each time.
                        let asked = rows.len();
                        let rows = self.leave_out_stored(rows, settled).await?;
                        if rows.len() < asked {
                            spans.stack.push(rows);
                            continue;
                        }
                        // Then it is not the key, but a unique index that an operator added.
                        let bad = RejectedRow::of_duplicate(&error);
                        settled.quarantined.extend(spans.narrow(rows, bad));
                    }
                    _ => return Err(error),
                },
            }
            if !passed && refused.looks_like_the_table() {
                self.tidy(&mut tidy).await?;
                passed = self.any_passes(&spans.sample()).await?
                    || matches!(self.probe(&refused).await?, Some(Probed::Passes));
                if !passed {
                    return Err(self.every_row(refused));
                }
            }
        }
        self.tidy(&mut tidy).await?;
        if !passed {
            self.judge(&refused).await?;
        }
        settled.quarantined.extend(refused.0);
        Ok(())
    }

    /// Decides whether refused rows are bad if no row of the batch was stored.
    async fn judge(self, refused: &RejectedRows) -> Result<(), Error> {
        let is_bad = match self.probe(refused).await? {
            None | Some(Probed::Passes) => true,
            Some(Probed::Refused) => false,
            Some(Probed::Silent) => refused.0.iter().all(|(_, bad)| bad.is_evident),
        };
        match (is_bad, refused.0.last()) {
            (false, Some((_, last))) => Err(Error::Undecided {
                table: self.batch.table(),
                rows: refused.0.len(),
                last: Box::new(last.clone()),
            }),
            _ => Ok(()),
        }
    }

    fn every_row(self, refused: RejectedRows) -> Error {
        Error::EveryRow {
            table: self.batch.table(),
            rows: refused.0.len(),
            last: Box::new(
                refused
                    .0
                    .into_iter()
                    .next_back()
                    .map_or_else(RejectedRow::default, |(_, bad)| bad),
            ),
        }
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

    /// Whether any of these rows can be stored alone. Stores none.
    async fn any_passes(self, rows: &[usize]) -> Result<bool, Error> {
        for &at in rows {
            if let Ok(true) = self.passes(self.batch.row(at)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a row can be stored, or its error. Does not store it.
    async fn passes(self, row: &[u8]) -> Result<Result<bool, RejectedRow>, Error> {
        let tried = self.copy_rows(None, std::iter::once(row)).await;
        let passes = match tried {
            Ok(copied) => Ok(copied == 1),
            Err(error) => match error.class_if_it_lasts(self.lasts) {
                ErrorKind::RejectedRow(bad) => Err(bad),
                ErrorKind::Duplicate => Err(RejectedRow::of_duplicate(&error)),
                _ => return Err(error),
            },
        };
        self.tidy(&mut Tidy::Undo).await?;
        Ok(passes)
    }

    /// Tries a copy of a row that is already stored, under a new id, and undoes it. Batches of a
    /// single event are common, and the next event may be hours away.
    ///
    /// `None`: no row was refused.
    async fn probe(self, refused: &RejectedRows) -> Result<Option<Probed>, Error> {
        let Some((at, _)) = refused.0.first() else {
            return Ok(None);
        };
        let Some(row) = self.stored_row(self.batch.key(*at)).await? else {
            return Ok(Some(Probed::Silent));
        };
        Ok(Some(match self.passes(&row).await? {
            Ok(true) => Probed::Passes,
            Ok(false) => Probed::Silent,
            // The error may be about the copy's own values, as with a unique index.
            Err(bad) if matches!(bad.sqlstate.as_str(), "23505" | "23P01") => Probed::Silent,
            Err(bad) => match refused
                .0
                .iter()
                .any(|(_, other)| other.sqlstate == bad.sqlstate)
            {
                true => Probed::Refused,
                false => Probed::Silent,
            },
        }))
    }

    /// A row of the table under a new id, preferably the tenant's newest.
    async fn stored_row(self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let table = self.batch.table();
        let id = Uuid::now_v7();
        let columns: Vec<_> = table
            .columns()
            .iter()
            .map(|column| match column.name {
                "event_id" => format!("'{id}'::uuid"),
                // Rows of the suite's other writers have no `received_at`.
                "received_at" => "coalesce(received_at, occurred_at)".to_owned(),
                name => name.to_owned(),
            })
            .collect();
        let columns = columns.join(", ");
        let sql = format!(
            "COPY ((SELECT {columns} FROM {table} WHERE tenant_id = '{}'
                     ORDER BY occurred_at DESC LIMIT 1)
                   UNION ALL
                   (SELECT {columns} FROM {table} LIMIT 1)
                   LIMIT 1) TO STDOUT (FORMAT binary)",
            key.tenant
        );
        let reading = async {
            let stream = self.client.copy_out(&sql).await?;
            stream.try_collect::<Vec<Bytes>>().await
        };
        match limited("read a row that is stored", PROBE_LIMIT, reading).await {
            Ok(read) => Ok(only_row(table, &read.concat())),
            // The role may write but not read: then the rows that follow have to decide.
            Err(error) if error.is_refusal() => {
                self.tidy(&mut Tidy::Undo).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
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
}

/// Reading one row by the key's index takes a millisecond.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(rows: usize, line: Option<usize>) -> Vec<Vec<usize>> {
        let mut spans = Spans::of(Vec::new());
        spans.split((0..rows).collect(), line);
        spans.stack.into_iter().skip(1).rev().collect()
    }

    #[test]
    fn a_bad_row_is_split_off_at_its_line_or_by_halves() {
        assert_eq!(pieces(4, Some(3)), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(pieces(4, Some(1)), [vec![], vec![0], vec![1, 2, 3]]);
        assert_eq!(pieces(4, None), [vec![0, 1], vec![2, 3]]);
        // A line outside the span is ignored.
        assert_eq!(pieces(3, Some(9)), [vec![0], vec![1, 2]]);
    }

    /// Isolates without Postgres. Returns the bad rows, and the number of rows sent.
    fn isolated(
        rows: usize,
        is_bad: impl Fn(usize) -> bool,
        with_lines: bool,
    ) -> (Vec<usize>, usize) {
        let mut spans = Spans::of((0..rows).collect());
        let (mut bad, mut sent) = (Vec::new(), 0);
        while let Some(span) = spans.next() {
            sent += span.len();
            match span.iter().position(|&at| is_bad(at)) {
                None => spans.grow(),
                Some(_) if span.len() == 1 => bad.push(span[0]),
                Some(at) => spans.split(span, with_lines.then_some(at + 1)),
            }
        }
        (bad, sent)
    }

    #[test]
    fn every_bad_row_is_found_and_none_costs_the_whole_batch() {
        for every in [1, 2, 3, 10, 100, 1000] {
            let (bad, sent) = isolated(20_000, |at| at % every == every - 1, true);
            assert_eq!(bad.len(), 20_000 / every);
            // Per bad row: its span, the good rows before it, and the row itself.
            let bound = 20_000 * 4 + bad.len() * (SPAN_ROWS_MIN + 2) + 40_000;
            assert!(sent < bound, "every {every}: {sent} rows sent");
            let (bad, sent) = isolated(20_000, |at| at % every == every - 1, false);
            assert_eq!(bad.len(), 20_000 / every);
            assert!(sent <= 20_000 * 16, "every {every}: {sent} rows sent");
        }
    }

    #[test]
    fn a_sample_is_of_rows_from_everywhere() {
        let spans = Spans {
            stack: vec![(100..200).collect(), (0..100).collect()],
            rows_max: 1,
        };
        let sample = spans.sample();
        assert_eq!(sample.len(), SAMPLE_ROWS);
        assert!(sample.iter().any(|&at| at < 100) && sample.iter().any(|&at| at >= 100));
        assert_eq!(Spans::of(vec![7]).sample(), [7]);
        assert!(Spans::of(Vec::new()).sample().is_empty());
    }
}
