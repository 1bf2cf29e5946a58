//! Encodes rows, column by column, in the table's fixed order.

use uuid::Uuid;

use super::rows::Rows;
use super::{Key, PREFIX_BYTES, ROW_FORMAT};
use crate::event::numeric::Decimal;
use crate::event::table::Table;
use crate::event::time::Micros;

/// Encodes rows one after the other into one buffer.
#[derive(Debug)]
pub struct RowWriter {
    table: Table,
    buffer: Vec<u8>,
    ends: Vec<u32>,
    first: Micros,
    last: Micros,
}

impl RowWriter {
    /// Bytes before the first row.
    pub const EMPTY_BYTES: usize = PREFIX_BYTES;

    /// A writer with space for `bytes`.
    pub fn new(table: Table, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(PREFIX_BYTES + bytes);
        buffer.extend_from_slice(&[ROW_FORMAT, table as u8]);
        Self {
            table,
            buffer,
            ends: Vec::new(),
            first: Micros(i64::MAX),
            last: Micros(i64::MIN),
        }
    }

    /// Starts a row with its key.
    pub fn row(&mut self, key: &Key) -> Columns<'_> {
        let columns = i16::try_from(self.table.columns().len()).expect("tables have few columns");
        self.first = self.first.min(key.occurred_at);
        self.last = self.last.max(key.occurred_at);
        // One piece of known size: there is no call or check for each column.
        let mut start = [0; Key::END];
        start[..2].copy_from_slice(&columns.to_be_bytes());
        start[2..22].copy_from_slice(&column_of_16(key.tenant.as_bytes()));
        start[22..34].copy_from_slice(&column_of_8(key.occurred_at));
        start[34..].copy_from_slice(&column_of_16(key.event_id.as_bytes()));
        self.buffer.extend_from_slice(&start);
        Columns { writer: self }
    }

    /// Bytes written.
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of memory, written or not.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Removes the rows that were written after the first `len_bytes`.
    pub fn take_back(&mut self, len_bytes: usize) {
        self.buffer.truncate(len_bytes);
        while self
            .ends
            .last()
            .is_some_and(|&end| end as usize > len_bytes)
        {
            self.ends.pop();
        }
        let mut from = PREFIX_BYTES;
        (self.first, self.last) = (Micros(i64::MAX), Micros(i64::MIN));
        for &end in &self.ends {
            let key = Key::of_row(&self.buffer[from..]).expect("rows begin with their key");
            self.first = self.first.min(key.occurred_at);
            self.last = self.last.max(key.occurred_at);
            from = end as usize;
        }
    }

    /// Number of complete rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no row is complete.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All rows written.
    pub fn finish(mut self) -> Rows {
        // A buffer with much unused space is shrunk, as nothing will fill it.
        let spare_bytes = self.buffer.capacity() - self.buffer.len();
        if spare_bytes > self.buffer.len() / 4 + 4096 {
            self.buffer.shrink_to_fit();
        }
        Rows {
            table: self.table,
            framed: self.buffer.into(),
            ends: self.ends,
            first: self.first,
            last: self.last,
        }
    }
}

/// A `uuid`'s length and bytes.
fn column_of_16(value: &[u8; 16]) -> [u8; 20] {
    let mut column = [0; 20];
    column[..4].copy_from_slice(&16_i32.to_be_bytes());
    column[4..].copy_from_slice(value);
    column
}

/// A `timestamptz`'s length and bytes.
fn column_of_8(value: Micros) -> [u8; 12] {
    let mut column = [0; 12];
    column[..4].copy_from_slice(&8_i32.to_be_bytes());
    column[4..].copy_from_slice(&value.to_postgres().to_be_bytes());
    column
}

/// The columns of the row being written, in the table's order.
#[derive(Debug)]
pub struct Columns<'w> {
    writer: &'w mut RowWriter,
}

impl Columns<'_> {
    fn column(&mut self, bytes: &[u8]) -> &mut Self {
        let length = i32::try_from(bytes.len()).expect("an event is far smaller than 2 GiB");
        self.writer.buffer.extend_from_slice(&length.to_be_bytes());
        self.writer.buffer.extend_from_slice(bytes);
        self
    }

    /// NULL.
    pub fn null(&mut self) -> &mut Self {
        self.writer
            .buffer
            .extend_from_slice(&(-1_i32).to_be_bytes());
        self
    }

    /// `uuid`.
    pub fn uuid(&mut self, value: &Uuid) -> &mut Self {
        let column = column_of_16(value.as_bytes());
        self.writer.buffer.extend_from_slice(&column);
        self
    }

    /// `timestamptz`.
    pub fn time(&mut self, value: Micros) -> &mut Self {
        self.writer.buffer.extend_from_slice(&column_of_8(value));
        self
    }

    /// `text`, or the label of an enum.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.column(value.as_bytes())
    }

    /// `text` or NULL.
    pub fn opt_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    /// `bytea` or NULL.
    pub fn opt_bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.column(value),
            None => self.null(),
        }
    }

    /// `uuid` or NULL.
    pub fn opt_uuid(&mut self, value: Option<&Uuid>) -> &mut Self {
        match value {
            Some(value) => self.uuid(value),
            None => self.null(),
        }
    }

    /// `integer` or NULL.
    pub fn opt_int(&mut self, value: Option<i32>) -> &mut Self {
        match value {
            Some(value) => self.column(&value.to_be_bytes()),
            None => self.null(),
        }
    }

    /// `numeric(18,6)` or NULL.
    pub fn opt_decimal(&mut self, value: Option<Decimal>) -> &mut Self {
        match value {
            Some(value) => {
                let buffer = &mut self.writer.buffer;
                let start = buffer.len();
                buffer.extend_from_slice(&[0; 4]);
                value.encode(buffer);
                let length = i32::try_from(buffer.len() - start - 4).expect("a numeric is short");
                buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
                self
            }
            None => self.null(),
        }
    }

    /// `jsonb`: a version byte, then the text.
    pub fn json(&mut self, text: &str) -> &mut Self {
        let length = i32::try_from(text.len() + 1).expect("an event is far smaller than 2 GiB");
        self.writer.buffer.extend_from_slice(&length.to_be_bytes());
        self.writer.buffer.push(1);
        self.writer.buffer.extend_from_slice(text.as_bytes());
        self
    }

    /// `jsonb` or NULL.
    pub fn opt_json(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.json(text),
            None => self.null(),
        }
    }

    /// Ends the row.
    pub fn end(&mut self) {
        let end =
            u32::try_from(self.writer.buffer.len()).expect("a request is far smaller than 4 GiB");
        self.writer.ends.push(end);
    }
}
