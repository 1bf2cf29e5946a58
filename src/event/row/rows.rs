//! Encoded rows, and how they are parsed from bytes on disk.

use bytes::Bytes;

use super::{Key, PREFIX_BYTES, ROW_FORMAT};
use crate::event::table::Table;
use crate::event::time::Micros;

/// The encoded rows of one request for one table.
#[derive(Clone, Debug)]
pub struct Rows {
    pub(super) table: Table,
    /// The rows after their prefix.
    pub(super) framed: Bytes,
    /// Where each row ends in `framed`.
    pub(super) ends: Vec<u32>,
    pub(super) first: Micros,
    pub(super) last: Micros,
}

/// Why bytes are not rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRows {
    /// The format or the table is not known.
    #[error("the rows are in format {format} of table {table}, which this version does not know")]
    UnknownFormat {
        /// The version.
        format: u8,
        /// The table's number.
        table: u8,
    },
    /// A row is cut off or has other columns.
    #[error("row {row} is damaged at byte {at}")]
    Damaged {
        /// Which row, from 0.
        row: usize,
        /// Where, in bytes from the start.
        at: usize,
    },
}

impl Rows {
    /// The table that the rows are for.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All rows with their prefix, as they are on disk.
    pub fn framed(&self) -> &Bytes {
        &self.framed
    }

    /// The earliest `occurred_at`.
    pub fn first(&self) -> Micros {
        self.first
    }

    /// The latest `occurred_at`.
    pub fn last(&self) -> Micros {
        self.last
    }

    /// The rows, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = PREFIX_BYTES;
        self.ends.iter().map(move |&end| {
            let row = &self.framed[from..end as usize];
            from = end as usize;
            row
        })
    }

    /// The byte range of each row in [`Rows::framed`].
    pub fn spans(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut from = u32::try_from(PREFIX_BYTES).expect("the prefix is two bytes");
        self.ends.iter().map(move |&end| {
            let span = (from, end);
            from = end;
            span
        })
    }

    /// Parses bytes that [`Rows::framed`] returned, and checks them.
    pub fn parse(framed: Bytes) -> Result<Self, NotRows> {
        let (format, table) = match framed.first_chunk::<PREFIX_BYTES>() {
            Some(&[format, table]) => (format, table),
            None => return Err(NotRows::Damaged { row: 0, at: 0 }),
        };
        let known = Table::ALL.get(usize::from(table)).copied();
        let (ROW_FORMAT, Some(known)) = (format, known) else {
            return Err(NotRows::UnknownFormat { format, table });
        };
        let columns = known.columns().len();
        let mut ends = Vec::new();
        let (mut first, mut last) = (Micros(i64::MAX), Micros(i64::MIN));
        let mut at = PREFIX_BYTES;
        while at < framed.len() {
            let damaged = |at| NotRows::Damaged {
                row: ends.len(),
                at,
            };
            let start = at;
            let count = framed[at..].first_chunk().map(|b| i16::from_be_bytes(*b));
            if count.and_then(|c| usize::try_from(c).ok()) != Some(columns) {
                return Err(damaged(at));
            }
            at += 2;
            for _ in 0..columns {
                let length = framed.get(at..).and_then(|rest| rest.first_chunk());
                let length = i32::from_be_bytes(*length.ok_or(damaged(at))?);
                at += 4;
                match usize::try_from(length) {
                    Ok(length) if length <= framed.len() - at => at += length,
                    Err(_) if length == -1 => {}
                    _ => return Err(damaged(at)),
                }
            }
            let key = Key::of_row(&framed[start..at]).ok_or(damaged(start))?;
            first = first.min(key.occurred_at);
            last = last.max(key.occurred_at);
            ends.push(u32::try_from(at).map_err(|_| damaged(at))?);
        }
        Ok(Self {
            table: known,
            framed,
            ends,
            first,
            last,
        })
    }
}
