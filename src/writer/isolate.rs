//! Finds the rows that Postgres refuses, and tells whether they or the table are
//! at fault.
//!
//! Invariant: a row is called bad only after another one went through in the same
//! transaction, or if the error itself speaks of a value of the row. Otherwise
//! the batch is not decided, and nothing is set aside.
//!
//! Rows are copied in spans under a savepoint, and a span that fails is split. A
//! span is at most twice as long as the rows that lately went before a bad one,
//! so that many bad rows cost what they weigh, not that times the batch.

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

/// So many rows that failed in one way, and none that passed, are the table's fault.
const SCHEMA_ROWS: usize = 20;

/// The same for rows that fail in many ways.
const SCHEMA_ROWS_ANY_WAY: usize = 100;

/// Rows from the rest of the batch that are tried before the table is blamed.
const SAMPLE_ROWS: usize = 20;

/// A span shorter than this costs its round trips, not its rows.
const SPAN_ROWS_MIN: usize = 16;

/// Rows that still have to be copied.
#[derive(Debug)]
struct Spans {
    /// The next one is last.
    stack: Vec<Vec<usize>>,
    /// How many rows to try at once.
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

    /// A span went through.
    fn grow(&mut self) {
        self.rows_max = self.rows_max.saturating_mul(2);
    }

    /// Splits rows around the bad one: at the line that Postgres names, which is
    /// three pieces, or else in the middle.
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

    /// Narrows down which of `rows` is bad; returns it once that is certain.
    fn narrow(&mut self, rows: Vec<usize>, bad: RejectedRow) -> Option<(usize, RejectedRow)> {
        match (rows.as_slice(), bad.line) {
            ([only], _) => Some((*only, bad)),
            // What is wrong with a value, and in which line, Postgres knows for sure.
            (all, Some(line)) if bad.is_evident && (1..=all.len()).contains(&line) => {
                let only = rows[line - 1];
                self.split(rows, bad.line);
                // Of the three pieces it is the one in the middle.
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

    /// Some of the rows that still have to be copied, from all over them; others
    /// each time, so that a row that passes is found in the end.
    fn sample(&self) -> Vec<usize> {
        let left: Vec<usize> = self.stack.concat();
        let count = left.len().min(SAMPLE_ROWS);
        let within =
            |n: usize| rand::random_range(n * left.len() / count..(n + 1) * left.len() / count);
        (0..count).map(|n| left[within(n)]).collect()
    }
}

/// Rows that failed alone, before any went through.
#[derive(Debug, Default)]
struct RejectedRows(Vec<(usize, RejectedRow)>);

impl RejectedRows {
    /// Whether the last one makes it so many that it looks like the table's fault.
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

/// What stands between one span and the next; sent with the next COPY, so that a
/// span costs two round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tidy {
    /// The savepoint is set, and nothing happened since.
    Nothing,
    /// Keep what the last span stored.
    Keep,
    /// Undo the last span, which failed.
    Undo,
}

impl Tidy {
    fn sql(self) -> Option<&'static str> {
        match self {
            Tidy::Nothing => None,
            Tidy::Keep => Some("RELEASE span; SAVEPOINT span"),
            // The savepoint stays.
            Tidy::Undo => Some("ROLLBACK TO span"),
        }
    }
}

/// What a COPY of some rows came to.
enum Copied {
    /// All are stored, except for those that something in the database left out.
    Without(Vec<usize>),
    /// Fewer are stored than were given; these keys are missing, and may be for
    /// another reason.
    Unclear(Vec<usize>),
}

/// What a row that is stored already says of the table.
enum Probed {
    /// Another one like it goes through.
    Passes,
    /// Another one like it is refused.
    RejectedRows,
    /// There is none, or it says nothing.
    Silent,
}

impl Transaction<'_> {
    /// Copies `rows`, which are not stored yet, except for those that are bad.
    /// The transaction is open, with the savepoint `span`, and puts no check off.
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
                        // Another writer has stored some of these rows since we asked; by
                        // the time of the error it has committed, so asking again finds
                        // them. However often that happens, the span has fewer rows each time.
                        let asked = rows.len();
                        let rows = self.leave_out_stored(rows, settled).await?;
                        if rows.len() < asked {
                            spans.stack.push(rows);
                            continue;
                        }
                        // Not the key, then, but a unique index of somebody else's.
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

    /// Whether rows that failed alone, in a batch of which nothing went through,
    /// are bad.
    async fn judge(self, refused: &RejectedRows) -> Result<(), Error> {
        let is_bad = match self.probe(refused).await? {
            None | Some(Probed::Passes) => true,
            Some(Probed::RejectedRows) => false,
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

    /// Copies rows, and says which of them are not there.
    async fn copy_span(self, tidy: Tidy, rows: &[usize]) -> Result<Copied, Error> {
        let bytes = rows.iter().map(|&at| self.batch.row(at));
        let copied = self.copy_rows(tidy.sql(), bytes).await?;
        if copied == rows.len() {
            return Ok(Copied::Without(Vec::new()));
        }
        let missing = self.missing(rows).await?;
        // A row that a trigger gave another key is missing and counted, one that a
        // trigger stored by itself neither. Where nothing was counted, none is missing
        // for the first reason.
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

    /// The rows whose keys are not in the table.
    async fn missing(self, rows: &[usize]) -> Result<Vec<usize>, Error> {
        let asking = self.statements.stored(self.client, self.batch, rows);
        let stored = limited("look for rows that were left out", STATEMENT_LIMIT, asking).await?;
        let is_missing = |at: &usize| stored.binary_search(at).is_err();
        Ok(rows.iter().copied().filter(is_missing).collect())
    }

    /// Whether any of these rows can be stored, each alone; stores none.
    async fn any_passes(self, rows: &[usize]) -> Result<bool, Error> {
        for &at in rows {
            if let Ok(true) = self.passes(self.batch.row(at)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a row can be stored, or its error; does not store it.
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

    /// Tries a row that the table has already, under another id, and undoes it:
    /// single events are the rule, and nothing may come behind one for hours.
    /// `None`: there is nothing to judge.
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
            // What it says may be about its own values: a unique index is.
            Err(bad) if matches!(bad.sqlstate.as_str(), "23505" | "23P01") => Probed::Silent,
            Err(bad) => match refused
                .0
                .iter()
                .any(|(_, other)| other.sqlstate == bad.sqlstate)
            {
                true => Probed::RejectedRows,
                false => Probed::Silent,
            },
        }))
    }

    /// A row of the table under a new id, by preference the tenant's newest.
    async fn stored_row(self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let table = self.batch.table();
        let id = Uuid::now_v7();
        let columns: Vec<_> = table
            .columns()
            .iter()
            .map(|column| match column.name {
                "event_id" => format!("'{id}'::uuid"),
                // Rows of the suite's own writers have none.
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
            // The role may write and not read: then rows from behind have to tell.
            Err(error) if error.is_refusal() => {
                self.tidy(&mut Tidy::Undo).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Copies bytes of rows, after `first`; returns how many rows Postgres counts.
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

    /// Runs what has rows checked: its errors may be theirs.
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
        // A line that cannot be is as good as none.
        assert_eq!(pieces(3, Some(9)), [vec![0], vec![1, 2]]);
    }

    /// Isolates without Postgres; returns the bad rows, and how many were sent.
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
            // Each bad row: the span that it ends, what was good before it, itself.
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
