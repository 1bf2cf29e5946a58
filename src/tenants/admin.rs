//! What an operator does with tenants and keys.
//!
//! Each change is one transaction, with its row in `audit_log`. A running service sees it at its
//! next refresh. Messages are written for the person at the command line; nothing here prints.

pub mod audit;
pub mod key_changes;
pub mod keys;
pub mod settings;
pub mod tenants;

use anyhow::Result;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::event::time::Micros;

/// A time for people; `None` if the column is null or outside the range of `jiff`.
fn time(row: &Row, column: usize) -> Result<Option<Timestamp>> {
    let at: Option<Micros> = row.try_get(column)?;
    Ok(at.and_then(|at| Timestamp::from_microsecond(at.0).ok()))
}
