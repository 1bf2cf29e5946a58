//! Which rows to copy next, as bad ones are found.
//!
//! Invariant: every row that is put in comes out in a span, until it is certain to be bad. Pure:
//! knows no database.

use crate::writer::error::RejectedRow;

/// Rows from the rest of the batch that are tried before the table is blamed.
const SAMPLE_ROWS: usize = 20;

/// Below this length a span costs its round trips, not its rows.
const SPAN_ROWS_MIN: usize = 16;

/// Rows that still have to be copied.
#[derive(Debug)]
pub(super) struct Spans {
    /// The next span is the last element.
    pub(super) stack: Vec<Vec<usize>>,
    /// The maximum length of a span.
    rows_max: usize,
}

impl Spans {
    pub(super) fn of(rows: Vec<usize>) -> Self {
        Self {
            stack: vec![rows],
            rows_max: usize::MAX,
        }
    }

    /// The next rows to try, at least one.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
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
    pub(super) fn grow(&mut self) {
        self.rows_max = self.rows_max.saturating_mul(2);
    }

    /// Splits rows around the bad one: into three at the line that Postgres names, or else into
    /// halves.
    pub(super) fn split(&mut self, mut rows: Vec<usize>, line: Option<usize>) {
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
    pub(super) fn narrow(
        &mut self,
        rows: Vec<usize>,
        bad: RejectedRow,
    ) -> Option<(usize, RejectedRow)> {
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
    pub(super) fn sample(&self) -> Vec<usize> {
        let left: Vec<usize> = self.stack.concat();
        let count = left.len().min(SAMPLE_ROWS);
        let within =
            |n: usize| rand::random_range(n * left.len() / count..(n + 1) * left.len() / count);
        (0..count).map(|n| left[within(n)]).collect()
    }
}

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
