//! Rows of binary COPY, the only form in which events travel from here on.
//!
//! A row is what PostgreSQL reads between the header and the trailer of `COPY … FROM STDIN BINARY`:
//! a column count (i16), then for each column a length (i32, −1 for NULL) and that many bytes, all
//! big endian. Every row begins with the three columns of the key, which have fixed sizes, so that
//! its [`Key`] can be read without the rest of the row.

pub mod rows;
pub mod writer;

use uuid::Uuid;

use super::table::Table;
use super::time::Micros;

/// The version of the columns' order and encoding, written before rows on disk.
pub const ROW_FORMAT: u8 = 1;

/// Bytes before the rows on disk: [`ROW_FORMAT`] and the table.
const PREFIX_BYTES: usize = 2;

/// A column's type, as far as its binary form depends on it.
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

/// The columns of `exposure_events`, as rows carry them.
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

/// The columns of `interaction_events`, as rows carry them.
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

/// The columns of `ingest_assignments`, as rows carry them.
const ASSIGNMENT_COLUMNS: [Column; 11] = [
    column("tenant_id", Kind::Uuid),
    column("occurred_at", Kind::Time),
    column("event_id", Kind::Uuid),
    column("received_at", Kind::Time),
    column("request_id", Kind::Uuid),
    column("experiment_id", Kind::Text),
    column("variant", Kind::Text),
    column("user_key", Kind::Bytes),
    column("surface", Kind::Text),
    column("context", Kind::Json),
    column("meta", Kind::Json),
];

impl Table {
    /// The columns of a row, in order.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Exposures => &EXPOSURE_COLUMNS,
            Table::Interactions => &INTERACTION_COLUMNS,
            Table::Assignments => &ASSIGNMENT_COLUMNS,
        }
    }
}

/// The identity of an event: the primary key of all tables.
///
/// Orders as the index does: tenant, then time, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The tenant.
    pub tenant: Uuid,
    /// When the event happened.
    pub occurred_at: Micros,
    /// The event's id.
    pub event_id: Uuid,
}

impl Key {
    /// Bytes of a row up to the end of its key.
    const END: usize = 2 + (4 + 16) + (4 + 8) + (4 + 16);

    /// Reads the key at the start of a row; `None` if there is none.
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

/// When a row was received: the column after the key.
pub fn received_at(row: &[u8]) -> Option<Micros> {
    let (length, rest) = row.get(Key::END..)?.split_first_chunk()?;
    let value = rest.first_chunk()?;
    (i32::from_be_bytes(*length) == 8).then(|| Micros::from_postgres(i64::from_be_bytes(*value)))
}

/// The hash of the id of a row's user; `None` if it has none.
pub fn user_key(table: Table, row: &[u8]) -> Option<&[u8]> {
    let mut rest = row.get(2..)?;
    for column in table.columns() {
        let (length, after) = rest.split_first_chunk()?;
        // Below zero: NULL.
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, after) = after.split_at_checked(length.unwrap_or(0))?;
        if column.name == "user_key" {
            return length.map(|_| value);
        }
        rest = after;
    }
    None
}

/// A row with the prefix of rows on disk, so that [`rows::Rows::parse`] accepts it.
pub fn framed(table: Table, row: &[u8]) -> Vec<u8> {
    [&[ROW_FORMAT, table as u8], row].concat()
}

#[cfg(test)]
mod tests {
    use super::rows::{NotRows, Rows};
    use super::writer::RowWriter;
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
    fn the_key_of_a_user_is_found_in_each_table_and_is_none_where_there_is_none() {
        for table in Table::ALL {
            for given in [Some([7; 32]), None] {
                let mut writer = RowWriter::new(table, 0);
                let mut row = writer.row(&Key {
                    tenant: Uuid::from_u128(1),
                    occurred_at: Micros(0),
                    event_id: Uuid::from_u128(2),
                });
                for column in &table.columns()[3..] {
                    match (column.name, column.kind) {
                        ("user_key", _) => row.opt_bytes(given.as_ref().map(<[u8; 32]>::as_slice)),
                        (_, Kind::Text) => row.text("some text"),
                        _ => row.null(),
                    };
                }
                row.end();
                let rows = writer.finish();
                let first = rows.iter().next().unwrap();
                let wanted = given.as_ref().map(<[u8; 32]>::as_slice);
                assert_eq!(user_key(table, first), wanted, "{table}");
                for cut in 0..first.len() {
                    let found = user_key(table, &first[..cut]);
                    assert!(found.is_none() || found == wanted, "{table}, cut at {cut}");
                }
            }
        }
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
