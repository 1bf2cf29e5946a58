//! A row as a JSON object, for people who look for an error in it.
//!
//! `jsonb_populate_record` turns the object back into the row.

use uuid::Uuid;

use super::json::write::ObjectWriter;
use super::numeric::Decimal;
use super::row::Kind;
use super::table::Table;
use super::time::Micros;

/// The row's columns by name; `None` if the bytes are not a row of this table.
pub fn row_to_json(table: Table, row: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(row.len() * 2);
    let mut object = ObjectWriter::open(&mut out);
    let mut rest = row.get(2..)?;
    for column in table.columns() {
        let (length, after) = rest.split_first_chunk()?;
        rest = after;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            object.raw(column.name, "null");
            continue;
        };
        let (value, after) = rest.split_at_checked(length)?;
        rest = after;
        match column.kind {
            Kind::Uuid => object.str(column.name, &Uuid::from_slice(value).ok()?.to_string()),
            Kind::Time => {
                let us = i64::from_be_bytes(value.try_into().ok()?);
                object.str(column.name, &Micros::from_postgres(us).to_string())
            }
            Kind::Text => object.str(column.name, std::str::from_utf8(value).ok()?),
            Kind::Bytes => object.str(column.name, &format!("\\x{}", hex::encode(value))),
            Kind::Int => {
                let value = i32::from_be_bytes(value.try_into().ok()?);
                object.raw(column.name, &value.to_string())
            }
            Kind::Decimal => object.raw(column.name, &Decimal::decode_to_text(value)?),
            Kind::Json => object.raw(column.name, std::str::from_utf8(value.get(1..)?).ok()?),
        };
    }
    object.close();
    Some(out)
}
