//! Rows that Postgres does not store, kept for an operator.

pub(crate) mod put;
pub(crate) mod retry;

use crate::event::result::{LEFT_OUT, LEFT_OUT_MESSAGE};
use crate::writer::error::RejectedRow;

/// The error of a row that Postgres left out without an error.
pub(crate) fn left_out() -> RejectedRow {
    RejectedRow {
        sqlstate: LEFT_OUT.to_owned(),
        message: LEFT_OUT_MESSAGE.to_owned(),
        ..RejectedRow::default()
    }
}
