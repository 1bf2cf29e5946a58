//! What an operator does to tenants and keys.
//!
//! A running service learns of a change at its next refresh. Messages are
//! written for the person at the command line; nothing here prints.

pub mod keys;
pub mod tenants;

use anyhow::Result;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::event::time::Micros;

/// A time for people; none if the column is null or beyond the calendar.
fn time(row: &Row, column: usize) -> Result<Option<Timestamp>> {
    let at: Option<Micros> = row.try_get(column)?;
    Ok(at.and_then(|at| Timestamp::from_microsecond(at.0).ok()))
}
