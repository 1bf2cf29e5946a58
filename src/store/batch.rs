//! The rows of several frames, in the order in which the index wants them, and
//! what became of each.

use crate::event::{Key, Micros, Table};
use crate::queue::{Failure, Frame, Outcome, Quarantined};

use super::error::BadRow;

/// Frames that go into one transaction.
#[derive(Debug)]
pub(super) struct Batch {
    table: Table,
    frames: Vec<Frame>,
    /// All rows of all frames, sorted by key.
    rows: Vec<BatchRow>,
}

/// Where one row of a batch lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRow {
    pub(super) key: Key,
    frame: u32,
    row: u32,
    from: u32,
    to: u32,
}

/// What became of a batch: every row that is not listed here is stored.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Rows that were there before, by their place in the batch.
    pub(super) duplicates: Vec<usize>,
    /// Rows that Postgres refused, by their place in the batch.
    pub(super) quarantined: Vec<(usize, BadRow)>,
}

impl Batch {
    /// Gathers the rows of `frames`, which are all of one table.
    ///
    /// Sorted by key, neighbours in the batch are neighbours in the index, equal
    /// keys stand side by side, and two writers with overlapping batches take
    /// their locks in the same order.
    pub(super) fn new(table: Table, frames: Vec<Frame>) -> Self {
        let place = |at: usize| u32::try_from(at).expect("a batch is far smaller than 4 GiB");
        let mut rows = Vec::with_capacity(frames.iter().map(|frame| frame.rows.len()).sum());
        for (frame_at, frame) in frames.iter().enumerate() {
            let mut from = 0;
            for (row_at, row) in frame.rows.iter().enumerate() {
                let to = from + row.len();
                rows.push(BatchRow {
                    key: Key::of_row(row).expect("rows were checked when they were made"),
                    frame: place(frame_at),
                    row: place(row_at),
                    from: place(from),
                    to: place(to),
                });
                from = to;
            }
        }
        // Stable: of rows with equal keys the one that came first is stored.
        rows.sort_by_key(|row| row.key);
        Self {
            table,
            frames,
            rows,
        }
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn key(&self, at: usize) -> &Key {
        &self.rows[at].key
    }

    /// The row's bytes.
    pub(super) fn row(&self, at: usize) -> &[u8] {
        let row = &self.rows[at];
        &self.frames[row.frame as usize].rows.bytes()[row.from as usize..row.to as usize]
    }

    /// When the rows happened; once for each frame if it lies within one
    /// partition, as most do.
    pub(super) fn times(&self) -> impl Iterator<Item = Micros> {
        self.rows.iter().map(|row| row.key.occurred_at)
    }

    /// The first of each group of equal keys, and the others.
    pub(super) fn split_repeats(&self) -> (Vec<usize>, Vec<usize>) {
        (0..self.rows.len()).partition(|&at| at == 0 || self.rows[at].key != self.rows[at - 1].key)
    }

    /// Sends back the frames that have rows at refused times.
    pub(super) fn refuse(self, refused: impl Fn(Micros) -> bool) -> Self {
        let mut hit = vec![false; self.frames.len()];
        for row in &self.rows {
            if refused(row.key.occurred_at) {
                hit[row.frame as usize] = true;
            }
        }
        let mut kept = Vec::with_capacity(self.frames.len());
        for (frame, hit) in self.frames.into_iter().zip(hit) {
            if hit {
                // Nobody may be waiting for the verdict any more.
                drop(frame.verdict.send(Err(Failure::PartitionBudget)));
            } else {
                kept.push(frame);
            }
        }
        Self::new(self.table, kept)
    }

    /// Tells every frame what became of its rows.
    pub(super) fn settle(self, settled: Settled) {
        let mut outcomes = vec![Outcome::default(); self.frames.len()];
        for at in settled.duplicates {
            let row = &self.rows[at];
            outcomes[row.frame as usize].duplicates.push(row.row);
        }
        for (at, bad) in settled.quarantined {
            let row = &self.rows[at];
            outcomes[row.frame as usize].quarantined.push(Quarantined {
                row: row.row,
                sqlstate: bad.sqlstate,
                message: bad.message,
            });
        }
        for (frame, outcome) in self.frames.into_iter().zip(outcomes) {
            // Nobody may be waiting for the verdict any more.
            drop(frame.verdict.send(Ok(outcome)));
        }
    }
}
