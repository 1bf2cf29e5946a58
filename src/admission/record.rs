//! One request's rows for one table, as the log carries them.

use crate::event::result::RecordResult;
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::log::record;

use super::memory::Reservation;

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
}

/// The stream number of a table's shard. More writers leave the existing numbers as they are.
pub fn stream(table: Table, shard: u8) -> u8 {
    shard * 2 + table as u8
}

/// The shard of a stream.
pub fn shard_of(stream: u8) -> u8 {
    stream / 2
}

/// The table of a stream's rows.
pub fn table_of(stream: u8) -> Table {
    Table::ALL[usize::from(stream % 2)]
}
