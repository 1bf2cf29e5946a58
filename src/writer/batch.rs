//! The rows of several records in key order, and the result of each row.

use crate::admission::record::Delivered;
use crate::event::result::{QuarantinedRow, RecordResult};
use crate::event::row::Key;
use crate::event::table::Table;
use crate::event::time::Micros;

use crate::writer::error::RejectedRow;

/// Records that go into one transaction: a contiguous part of one stream, in order.
#[derive(Debug)]
pub(crate) struct Batch {
    table: Table,
    records: Vec<Delivered>,
    /// All rows of all records, sorted by key.
    rows: Vec<BatchRow>,
}

/// Where one row of a batch is: its record, its place there, and its bytes.
#[derive(Clone, Copy, Debug)]
struct BatchRow {
    key: Key,
    record: u32,
    row: u32,
    from: u32,
    to: u32,
}

/// The result of a batch. Every row that is not listed here is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchResult {
    /// Rows that are already stored or repeat an earlier row, by their index in the batch.
    pub(crate) duplicates: Vec<usize>,
    /// Quarantined rows, by their index in the batch.
    pub(crate) quarantined: Vec<(usize, RejectedRow)>,
    /// How many of them were in quarantine already.
    pub(crate) quarantined_before: usize,
}

impl BatchResult {
    /// Counts the duplicates and the rows that are newly quarantined.
    ///
    /// A row that was already in quarantine counts as a duplicate: it is kept once.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let before = self.quarantined_before;
        (
            self.duplicates.len() + before,
            self.quarantined.len() - before,
        )
    }
}

impl Batch {
    /// Sorts the rows of `records`, which are all of one table, by key.
    ///
    /// Neighbours in the batch are then neighbours in the index, equal keys are adjacent, and two
    /// writers with overlapping batches take their locks in the same order.
    pub(crate) fn new(table: Table, records: Vec<Delivered>) -> Self {
        let place = |at: usize| u32::try_from(at).expect("a batch is far smaller than 4 GiB");
        let mut rows =
            Vec::with_capacity(records.iter().map(|record| record.memory.rows.len()).sum());
        for (frame_at, record) in records.iter().enumerate() {
            for (row_at, (from, to)) in record.memory.rows.spans().enumerate() {
                let row = &record.memory.rows.framed()[from as usize..to as usize];
                rows.push(BatchRow {
                    key: Key::of_row(row).expect("rows were checked when they were made"),
                    record: place(frame_at),
                    row: place(row_at),
                    from,
                    to,
                });
            }
        }
        // Stable: of rows with equal keys the earliest is stored.
        rows.sort_by_key(|row| row.key);
        Self {
            table,
            records,
            rows,
        }
    }

    /// The records, to be gathered again with others.
    pub(crate) fn into_records(self) -> Vec<Delivered> {
        self.records
    }

    /// The sequence of the last record.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.records.last().map_or(0, |record| record.sequence)
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> usize {
        self.records
            .iter()
            .map(|record| record.memory.rows.framed().len())
            .sum()
    }

    pub(crate) fn key(&self, at: usize) -> &Key {
        &self.rows[at].key
    }

    /// The row's bytes.
    pub(crate) fn row(&self, at: usize) -> &[u8] {
        let row = &self.rows[at];
        &self.records[row.record as usize].memory.rows.framed()[row.from as usize..row.to as usize]
    }

    /// The rows' `occurred_at`, in key order: ascending for each tenant.
    pub(crate) fn times(&self) -> impl Iterator<Item = Micros> {
        self.rows.iter().map(|row| row.key.occurred_at)
    }

    /// The first row of each key, and the repeats.
    pub(crate) fn split_repeats(&self) -> (Vec<usize>, Vec<usize>) {
        (0..self.rows.len()).partition(|&at| at == 0 || self.rows[at].key != self.rows[at - 1].key)
    }

    /// Sends each record the result of its rows.
    pub(crate) fn settle(self, settled: BatchResult) {
        let mut results = vec![RecordResult::default(); self.records.len()];
        for at in settled.duplicates {
            let row = &self.rows[at];
            results[row.record as usize].duplicates.push(row.row);
        }
        for (at, bad) in settled.quarantined {
            let row = &self.rows[at];
            results[row.record as usize]
                .quarantined
                .push(QuarantinedRow {
                    row: row.row,
                    sqlstate: bad.sqlstate,
                    message: bad.message,
                });
        }
        for (record, result) in self.records.into_iter().zip(results) {
            if let Some(waiting) = record.result {
                // The request may have given up waiting.
                drop(waiting.send(result));
            }
        }
    }
}
