//! The rows of several frames, in the order in which the index wants them, and
//! what became of each.

use tokio::sync::oneshot;

use crate::admission::frame::{Outcome, Quarantined, Verdict};
use crate::admission::memory::Loan;
use crate::event::row::Key;
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::event::time::Micros;

use crate::postgres::error::BadRow;

/// A frame of one stream that is not settled yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Its place in the spool.
    pub(crate) sequence: u64,
    /// Its rows.
    pub(crate) rows: Rows,
    /// The memory that the rows take, where they did not come from disk.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) loan: Option<Loan>,
    /// Where to say what became of them, where somebody may be waiting.
    pub(crate) verdict: Option<oneshot::Sender<Verdict>>,
}

/// Frames that go into one transaction: a stretch of one stream, in order.
#[derive(Debug)]
pub(crate) struct Batch {
    table: Table,
    frames: Vec<Pending>,
    /// All rows of all frames, sorted by key.
    rows: Vec<BatchRow>,
}

/// Where one row of a batch lies.
#[derive(Clone, Copy, Debug)]
struct BatchRow {
    key: Key,
    frame: u32,
    row: u32,
    from: u32,
    to: u32,
}

/// What became of a batch: every row that is not listed here is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    /// Rows that were there before, by their place in the batch.
    pub(crate) duplicates: Vec<usize>,
    /// Rows that were set aside, by their place in the batch.
    pub(crate) quarantined: Vec<(usize, BadRow)>,
    /// How many of those were set aside before.
    pub(crate) quarantined_before: usize,
}

impl Settled {
    /// Rows that were there before, and rows that are in quarantine only now.
    ///
    /// A row that was set aside before counts as a duplicate: it is kept once.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let before = self.quarantined_before;
        (
            self.duplicates.len() + before,
            self.quarantined.len() - before,
        )
    }
}

impl Batch {
    /// Gathers the rows of `frames`, which are all of one table.
    ///
    /// Sorted by key, neighbours in the batch are neighbours in the index, equal
    /// keys stand side by side, and two writers with overlapping batches take
    /// their locks in the same order.
    pub(crate) fn new(table: Table, frames: Vec<Pending>) -> Self {
        let place = |at: usize| u32::try_from(at).expect("a batch is far smaller than 4 GiB");
        let mut rows = Vec::with_capacity(frames.iter().map(|frame| frame.rows.len()).sum());
        for (frame_at, frame) in frames.iter().enumerate() {
            for (row_at, (from, to)) in frame.rows.spans().enumerate() {
                let row = &frame.rows.framed()[from as usize..to as usize];
                rows.push(BatchRow {
                    key: Key::of_row(row).expect("rows were checked when they were made"),
                    frame: place(frame_at),
                    row: place(row_at),
                    from,
                    to,
                });
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

    /// The frames, to be gathered again with others.
    pub(crate) fn into_frames(self) -> Vec<Pending> {
        self.frames
    }

    /// The last frame's place in the spool.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.sequence)
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> usize {
        self.frames
            .iter()
            .map(|frame| frame.rows.framed().len())
            .sum()
    }

    pub(crate) fn key(&self, at: usize) -> &Key {
        &self.rows[at].key
    }

    /// The row's bytes.
    pub(crate) fn row(&self, at: usize) -> &[u8] {
        let row = &self.rows[at];
        &self.frames[row.frame as usize].rows.framed()[row.from as usize..row.to as usize]
    }

    /// When the rows happened, tenant by tenant in ascending order.
    pub(crate) fn times(&self) -> impl Iterator<Item = Micros> {
        self.rows.iter().map(|row| row.key.occurred_at)
    }

    /// The first of each group of equal keys, and the others.
    pub(crate) fn split_repeats(&self) -> (Vec<usize>, Vec<usize>) {
        (0..self.rows.len()).partition(|&at| at == 0 || self.rows[at].key != self.rows[at - 1].key)
    }

    /// Tells every frame what became of its rows.
    pub(crate) fn settle(self, settled: Settled) {
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
            if let Some(verdict) = frame.verdict {
                // Whoever asked may have given up waiting.
                drop(verdict.send(outcome));
            }
        }
    }
}
