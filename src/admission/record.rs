//! One request's rows for one table, as the log carries them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::result::RecordResult;
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::log::record;
use crate::log::spool::format::STREAMS_MAX;

pub use super::memory::Reservation;

/// A record on its way into the log.
pub type Record = record::Record<InMemory, RecordResult>;

/// A record on its way to Postgres.
pub type Delivered = record::Delivered<InMemory, RecordResult>;

/// What stays in memory of a record while its lane reads from memory.
#[derive(Debug)]
pub struct InMemory {
    /// The rows, so that they need not be parsed again.
    pub rows: Rows,
    /// Their reservation; `None` for rows that were read from disk.
    pub reservation: Option<Reservation>,
    /// The request's `traceparent`, if the log carries it.
    pub trace: Option<Arc<str>>,
    /// Where the log notes that it keeps the record elsewhere, if it may.
    pub aside: Option<Aside>,
}

/// Whether a record was made durable on the local disk, by a log that is on other machines. Noted before
/// the answer.
#[derive(Clone, Debug, Default)]
pub struct Aside(Arc<AtomicBool>);

impl Aside {
    /// The record is kept on the local disk.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the streams of a table are numbered: its shards from `first` on, `step` apart.
///
/// The numbers are in spools and in the ledger, so they stay as they are: more writers, and more
/// tables, take numbers that were free.
struct Numbering {
    first: u8,
    step: u8,
    shards_max: u8,
}

/// By table. The first two take turns, up to eight writers for each. See
/// `docs/decisions/0021-assignments.md`.
const NUMBERING: [Numbering; Table::ALL.len()] = [
    Numbering {
        first: 0,
        step: 2,
        shards_max: 8,
    },
    Numbering {
        first: 1,
        step: 2,
        shards_max: 8,
    },
    // One lane stores more assignments than there are requests; 17 to 23 are free for more.
    Numbering {
        first: 16,
        step: 1,
        shards_max: 1,
    },
];

/// The table and the shard of each stream. Numbers that are free are those of the last table.
const PLACES: [(Table, u8); STREAMS_MAX] = {
    let mut places = [(Table::Assignments, 0); STREAMS_MAX];
    let mut table = 0;
    while table < Table::ALL.len() {
        let numbering = &NUMBERING[table];
        let mut shard = 0;
        while shard < numbering.shards_max {
            let stream = numbering.first + shard * numbering.step;
            places[stream as usize] = (Table::ALL[table], shard);
            shard += 1;
        }
        table += 1;
    }
    places
};

/// How many lanes each table has with this many writers.
pub fn shards(writers: u8) -> [u8; Table::ALL.len()] {
    NUMBERING.map(|numbering| writers.min(numbering.shards_max))
}

/// The streams of all lanes with this many writers.
pub fn streams(writers: u8) -> Vec<u8> {
    let tables = Table::ALL.into_iter().zip(shards(writers));
    tables
        .flat_map(|(table, shards)| (0..shards).map(move |shard| stream(table, shard)))
        .collect()
}

/// The stream number of a table's shard.
pub fn stream(table: Table, shard: u8) -> u8 {
    let numbering = &NUMBERING[table as usize];
    numbering.first + shard * numbering.step
}

/// The shard of a stream.
pub fn shard_of(stream: u8) -> u8 {
    PLACES[usize::from(stream)].1
}

/// The table of a stream's rows.
pub fn table_of(stream: u8) -> Table {
    PLACES[usize::from(stream)].0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_has_one_table_and_one_shard_and_keeps_its_number_with_more_writers() {
        for (writers, expected) in [
            (1, vec![0, 1, 16]),
            (2, vec![0, 2, 1, 3, 16]),
            (3, vec![0, 2, 4, 1, 3, 5, 16]),
            (
                8,
                vec![0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 16],
            ),
        ] {
            assert_eq!(streams(writers), expected, "{writers} writers");
        }
        for stream_number in streams(8) {
            let (table, shard) = (table_of(stream_number), shard_of(stream_number));
            assert_eq!(stream(table, shard), stream_number);
        }
        // As spools of version 1 have them.
        for old in 0..16 {
            let table = [Table::Exposures, Table::Interactions][usize::from(old % 2)];
            assert_eq!((table_of(old), shard_of(old)), (table, old / 2));
        }
    }
}
