//! Rows of binary COPY, the only form in which events travel from here on.
//!
//! A row is what PostgreSQL reads between the header and the trailer of
//! `COPY … FROM STDIN BINARY`: a column count (i16), then a length (i32, −1 for
//! NULL) and that many bytes for each column, all big endian. Every row begins
//! with the three columns of the key, which have fixed sizes, so that a row's
//! [`Key`] can be read without knowing the rest of it.

use bytes::Bytes;
use uuid::Uuid;

use super::numeric::Decimal;
use super::table::Table;
use super::time::Micros;

/// The version of the columns' order and encoding, kept before rows on disk.
pub const ROW_FORMAT: u8 = 1;

/// What stands before the rows on disk: [`ROW_FORMAT`] and the table.
const PREFIX_BYTES: usize = 2;

/// A column's type, as far as its binary form goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `uuid`
    Uuid,
    /// `timestamptz`
    Time,
    /// `text`, or an enum by its label
    Text,
    /// `bytea`
    Bytes,
    /// `integer`
    Int,
    /// `numeric(18,6)`
    Decimal,
    /// `jsonb`
    Json,
}

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in Postgres.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

/// `exposure_events`, as rows carry it.
const EXPOSURE_COLUMNS: [Column; 17] = [
    column("tenant_id", Kind::Uuid),
    column("occurred_at", Kind::Time),
    column("event_id", Kind::Uuid),
    column("received_at", Kind::Time),
    column("request_id", Kind::Uuid),
    column("surface", Kind::Text),
    column("segment", Kind::Text),
    column("user_key", Kind::Bytes),
    column("session_id", Kind::Text),
    column("experiment_id", Kind::Text),
    column("experiment_variant", Kind::Text),
    column("algo_version", Kind::Text),
    column("config_etag", Kind::Text),
    column("rules_etag", Kind::Text),
    column("request", Kind::Json),
    column("response", Kind::Json),
    column("meta", Kind::Json),
];

/// `interaction_events`, as rows carry it.
const INTERACTION_COLUMNS: [Column; 14] = [
    column("tenant_id", Kind::Uuid),
    column("occurred_at", Kind::Time),
    column("event_id", Kind::Uuid),
    column("received_at", Kind::Time),
    column("request_id", Kind::Uuid),
    column("user_key", Kind::Bytes),
    column("session_id", Kind::Text),
    column("surface", Kind::Text),
    column("segment", Kind::Text),
    column("event_type", Kind::Text),
    column("item_id", Kind::Text),
    column("position", Kind::Int),
    column("value", Kind::Decimal),
    column("meta", Kind::Json),
];

impl Table {
    /// The columns of a row, in order.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Exposures => &EXPOSURE_COLUMNS,
            Table::Interactions => &INTERACTION_COLUMNS,
        }
    }
}

/// What makes an event the same event: the primary key of both tables.
///
/// Orders as the index does: tenant, then time, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The tenant.
    pub tenant: Uuid,
    /// When the event happened.
    pub occurred_at: Micros,
    /// Which event it is.
    pub event_id: Uuid,
}

impl Key {
    /// Bytes of a row up to the end of its key.
    const END: usize = 2 + (4 + 16) + (4 + 8) + (4 + 16);

    /// Reads the key at the start of a row; `None` if that is not one.
    pub fn of_row(row: &[u8]) -> Option<Self> {
        let row: &[u8; Self::END] = row.first_chunk()?;
        let uuid = |at: usize| Uuid::from_slice(&row[at..at + 16]).ok();
        let occurred = i64::from_be_bytes(row[26..34].try_into().ok()?);
        let lengths_fit = row[2..6] == 16_i32.to_be_bytes()
            && row[22..26] == 8_i32.to_be_bytes()
            && row[34..38] == 16_i32.to_be_bytes();
        lengths_fit.then_some(Self {
            tenant: uuid(6)?,
            occurred_at: Micros::from_postgres(occurred),
            event_id: uuid(38)?,
        })
    }
}

/// The encoded rows of one request for one table.
#[derive(Clone, Debug)]
pub struct Rows {
    table: Table,
    /// The rows behind their prefix.
    framed: Bytes,
    /// Where each row ends in `framed`.
    ends: Vec<u32>,
    first: Micros,
    last: Micros,
}

/// The bytes are not rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRows {
    /// They are of another version, or none.
    #[error("the rows are in format {format} of table {table}, which this version does not know")]
    UnknownFormat {
        /// The version.
        format: u8,
        /// The table's number.
        table: u8,
    },
    /// A row breaks off or has other columns.
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

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All rows behind their prefix, as they are kept on disk.
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

    /// Row by row.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = PREFIX_BYTES;
        self.ends.iter().map(move |&end| {
            let row = &self.framed[from..end as usize];
            from = end as usize;
            row
        })
    }

    /// Where each row lies in [`Rows::framed`].
    pub fn spans(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut from = u32::try_from(PREFIX_BYTES).expect("the prefix is two bytes");
        self.ends.iter().map(move |&end| {
            let span = (from, end);
            from = end;
            span
        })
    }

    /// Takes bytes that were [`Rows`] before, checking that they still are.
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
    /// A writer with room for `bytes`.
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

    /// Starts a row; every row starts with its key.
    pub fn row(&mut self, key: &Key) -> Columns<'_> {
        let columns = i16::try_from(self.table.columns().len()).expect("tables have few columns");
        self.first = self.first.min(key.occurred_at);
        self.last = self.last.max(key.occurred_at);
        // As one piece of known size: nothing is called or checked for each column.
        let mut start = [0; Key::END];
        start[..2].copy_from_slice(&columns.to_be_bytes());
        start[2..22].copy_from_slice(&column_of_16(key.tenant.as_bytes()));
        start[22..34].copy_from_slice(&column_of_8(key.occurred_at));
        start[34..].copy_from_slice(&column_of_16(key.event_id.as_bytes()));
        self.buffer.extend_from_slice(&start);
        Columns { writer: self }
    }

    /// How many rows are complete.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no row is complete.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All rows written.
    pub fn finish(self) -> Rows {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut writer = RowWriter::new(Table::Interactions, 0);
        for n in 0..3_u8 {
            let key = Key {
                tenant: Uuid::from_u128(7),
                occurred_at: Micros(1_770_000_000_000_000 + i64::from(n)),
                event_id: Uuid::from_u128(n.into()),
            };
            let mut row = writer.row(&key);
            row.time(Micros(0)).null().null().null().null().null();
            row.text("click")
                .text("item")
                .opt_int(Some(3))
                .opt_decimal(None)
                .opt_json(None)
                .end();
        }
        writer.finish()
    }

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        let rows = rows();
        let again = Rows::parse(rows.framed().clone()).unwrap();
        assert_eq!(again.table(), Table::Interactions);
        assert_eq!(again.ends, rows.ends);
        assert_eq!((again.first(), again.last()), (rows.first(), rows.last()));
        let ids: Vec<_> = again
            .iter()
            .map(|row| Key::of_row(row).unwrap().event_id.as_u128())
            .collect();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn rows_cut_at_any_byte_are_not_taken_for_more_than_they_are() {
        let rows = rows();
        for cut in 0..rows.framed().len() {
            let at_end = cut == PREFIX_BYTES || rows.ends.iter().any(|&end| end as usize == cut);
            let parsed = Rows::parse(rows.framed().slice(..cut));
            assert_eq!(parsed.is_ok(), at_end, "cut at {cut}");
        }
    }

    #[test]
    fn rows_of_another_version_or_table_are_told_apart_from_damage() {
        let mut bytes = rows().framed().to_vec();
        bytes[0] = ROW_FORMAT + 1;
        assert!(matches!(
            Rows::parse(bytes.clone().into()),
            Err(NotRows::UnknownFormat { .. })
        ));
        bytes[..2].copy_from_slice(&[ROW_FORMAT, Table::Exposures as u8]);
        assert!(matches!(
            Rows::parse(bytes.into()),
            Err(NotRows::Damaged { .. })
        ));
    }
}
