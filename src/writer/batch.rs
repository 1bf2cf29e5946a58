//! The rows of several records in key order, and the result of each row.

use std::collections::BTreeMap;

use tracing::error;
use uuid::Uuid;

use crate::accounts::changes::ChangedDays;
use crate::accounts::erasure::subjects::ErasedSubjects;
use crate::admission::record::Delivered;
use crate::event::result::{QuarantinedRow, RecordResult};
use crate::event::row::{Key, received_at};
use crate::event::table::Table;
use crate::event::time::Micros;

use crate::writer::error::RejectedRow;

/// A line of the log names the traces of this many records at most.
const TRACES_MAX: usize = 16;

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

/// The result of a batch.
///
/// Invariant, once it is entered into the ledger: every row of the batch is stored, or listed here
/// once.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchResult {
    /// The number of rows that are stored as new ones.
    pub(crate) stored: usize,
    /// Rows that are already stored or repeat an earlier row, by their index in the batch.
    pub(crate) duplicates: Vec<usize>,
    /// Quarantined rows, by their index in the batch.
    pub(crate) quarantined: Vec<(usize, RejectedRow)>,
    /// How many of them were in quarantine already.
    pub(crate) quarantined_before: usize,
    /// Rows of users who were erased, by their index in the batch: left out, and booked as removed.
    pub(crate) erased: Vec<usize>,
}

/// How many rows of a batch came to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowCounts {
    /// Stored as new ones, or left out as rows that were erased once stored would be.
    pub(crate) stored: usize,
    /// Stored already, or in quarantine already: a row is kept there once.
    pub(crate) duplicates: usize,
    /// Newly quarantined.
    pub(crate) quarantined: usize,
}

impl BatchResult {
    /// Counts the rows.
    pub(crate) fn counts(&self) -> RowCounts {
        let before = self.quarantined_before;
        RowCounts {
            stored: self.stored + self.erased.len(),
            duplicates: self.duplicates.len() + before,
            quarantined: self.quarantined.len() - before,
        }
    }

    /// Panics unless each of the batch's `rows` has one result: a ledger entry with a row less would
    /// acknowledge an event that is nowhere.
    pub(crate) fn check(&self, rows: usize) {
        let (stored, duplicates) = (self.stored, self.duplicates.len());
        let (quarantined, erased) = (self.quarantined.len(), self.erased.len());
        let is_complete = stored + duplicates + quarantined + erased == rows;
        if !is_complete {
            error!(
                rows,
                stored,
                duplicates,
                quarantined,
                erased,
                "the results of a batch do not add up to its rows"
            );
        }
        assert!(
            is_complete,
            "a batch would be committed without all of its rows"
        );
        assert!(
            self.quarantined_before <= quarantined,
            "more rows were in quarantine already than were put there"
        );
        debug_assert!(
            self.has_each_row_once(rows),
            "a row of a batch has two results, or is not one of its rows"
        );
    }

    /// The rows that were not stored, in ascending order.
    fn not_stored(&self) -> Vec<usize> {
        let quarantined = self.quarantined.iter().map(|(at, _)| *at);
        let others = self.duplicates.iter().chain(&self.erased).copied();
        let mut listed: Vec<usize> = others.chain(quarantined).collect();
        listed.sort_unstable();
        listed
    }

    fn has_each_row_once(&self, rows: usize) -> bool {
        let listed = self.not_stored();
        listed.is_sorted_by(|a, b| a < b) && listed.last().is_none_or(|&last| last < rows)
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
        for (record_at, record) in records.iter().enumerate() {
            assert!(
                usize::try_from(record.items) == Ok(record.memory.rows.len()),
                "a record holds other rows than it counts"
            );
            for (row_at, (from, to)) in record.memory.rows.spans().enumerate() {
                let row = &record.memory.rows.framed()[from as usize..to as usize];
                rows.push(BatchRow {
                    key: Key::of_row(row).expect("rows were checked when they were made"),
                    record: place(record_at),
                    row: place(row_at),
                    from,
                    to,
                });
            }
        }
        // Of rows with equal keys the earliest is stored. A stable sort would do without the places,
        // and take as much memory again, fresh from the kernel for each batch.
        rows.sort_unstable_by_key(|row| (row.key, row.record, row.row));
        Self {
            table,
            records,
            rows,
        }
    }

    /// When its first row was received: the records are in the order in which they came.
    pub(crate) fn received_at(&self) -> Option<Micros> {
        received_at(self.records.first()?.memory.rows.iter().next()?)
    }

    /// The places in traces of the requests that its records came with, of the first ones.
    pub(crate) fn traces(&self) -> impl Iterator<Item = &str> {
        let records = self.records.iter();
        let traces = records.filter_map(|record| record.memory.trace.as_deref());
        traces.take(TRACES_MAX)
    }

    /// The records, to be gathered again with others.
    pub(crate) fn into_records(self) -> Vec<Delivered> {
        self.records
    }

    /// The sequence of the last record.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.records.last().map_or(0, |record| record.sequence)
    }

    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
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

    /// The rows of users who were erased, in ascending order.
    pub(crate) fn erased(&self, erased: &ErasedSubjects) -> Vec<usize> {
        let is_erased = |&at: &usize| {
            let key = self.key(at);
            erased.has(self.table, key.tenant, key.occurred_at, self.row(at))
        };
        (0..self.rows.len()).filter(is_erased).collect()
    }

    /// How many of some rows each tenant has.
    pub(crate) fn by_tenant(&self, rows: &[usize]) -> BTreeMap<Uuid, i64> {
        let mut counts = BTreeMap::new();
        for &at in rows {
            *counts.entry(self.key(at).tenant).or_default() += 1;
        }
        counts
    }

    /// The first row of each key, and the repeats.
    pub(crate) fn split_repeats(&self) -> (Vec<usize>, Vec<usize>) {
        (0..self.rows.len()).partition(|&at| at == 0 || self.rows[at].key != self.rows[at - 1].key)
    }

    /// The days that the stored rows are of.
    pub(crate) fn changed_days(&self, result: &BatchResult) -> ChangedDays {
        let others = result.not_stored();
        let stored = self.rows.iter().enumerate();
        let stored =
            stored.filter(|(at, _)| others.is_empty() || others.binary_search(at).is_err());
        ChangedDays::of(stored.map(|(_, row)| (row.key.tenant, row.key.occurred_at)))
    }

    /// Sends each record the result of its rows.
    pub(crate) fn answer(self, result: BatchResult) {
        let mut results = vec![RecordResult::default(); self.records.len()];
        for at in result.duplicates {
            let row = &self.rows[at];
            results[row.record as usize].duplicates.push(row.row);
        }
        for (at, bad) in result.quarantined {
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
            // The others are answered as stored.
            let others = result.duplicates.len() + result.quarantined.len();
            assert!(
                others <= record.memory.rows.len(),
                "a record has more results than rows"
            );
            if let Some(waiting) = record.result {
                // The request may have given up waiting.
                drop(waiting.send(result));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::admission::record::InMemory;
    use crate::event::row::writer::RowWriter;

    #[test]
    fn of_rows_with_equal_keys_the_earliest_is_stored() {
        let record = |sequence, ids: &[u128]| {
            let mut out = RowWriter::new(Table::Interactions, 0);
            for id in ids {
                let key = Key {
                    tenant: Uuid::nil(),
                    occurred_at: Micros(5),
                    event_id: Uuid::from_u128(*id),
                };
                out.row(&key).end();
            }
            let rows = out.finish();
            Delivered {
                sequence,
                items: u32::try_from(rows.len()).unwrap(),
                payload: rows.framed().clone(),
                memory: InMemory {
                    rows,
                    reservation: None,
                    trace: None,
                    aside: None,
                },
                result: None,
            }
        };
        // Enough rows that sorting them is not a matter of a few comparisons.
        let many: Vec<u128> = (0..200).map(|n| 199 - n).collect();
        let records = (1..=4).map(|sequence| record(sequence, &many));
        let batch = Batch::new(Table::Interactions, records.collect());
        let (first, repeats) = batch.split_repeats();
        assert_eq!((first.len(), repeats.len()), (200, 600));
        assert!(first.iter().all(|&at| batch.rows[at].record == 0));
        let batch = Batch::new(Table::Interactions, vec![record(1, &[7, 3, 7, 3])]);
        let (first, _) = batch.split_repeats();
        let rows: Vec<u32> = first.iter().map(|&at| batch.rows[at].row).collect();
        assert_eq!(rows, [1, 0]);
    }

    #[test]
    fn a_result_that_does_not_have_each_row_once_is_never_entered() {
        let result = |stored, duplicates: &[usize], quarantined: &[usize], before| BatchResult {
            stored,
            duplicates: duplicates.to_vec(),
            quarantined: quarantined
                .iter()
                .map(|&at| (at, RejectedRow::default()))
                .collect(),
            quarantined_before: before,
            ..BatchResult::default()
        };
        for (case, result, holds) in [
            ("all stored", result(4, &[], &[], 0), true),
            ("one of each", result(2, &[3], &[0], 1), true),
            ("one is missing", result(1, &[3], &[0], 0), false),
            ("one too many", result(3, &[3], &[0], 0), false),
            ("one twice", result(2, &[0], &[0], 0), false),
            ("a duplicate twice", result(2, &[1, 1], &[], 0), false),
            ("one of another batch", result(3, &[4], &[], 0), false),
            ("more before than now", result(3, &[], &[1], 2), false),
        ] {
            let checked = catch_unwind(AssertUnwindSafe(|| result.check(4)));
            assert_eq!(checked.is_ok(), holds, "{case}");
        }
    }
}
