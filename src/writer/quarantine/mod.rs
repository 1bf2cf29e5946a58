//! Rows that could not be stored, kept where an operator can look at them.

pub(crate) mod put;

use crate::event::result::{LEFT_OUT, LEFT_OUT_MESSAGE};
use crate::writer::error::RejectedRow;

/// What is said of a row that Postgres did not store, without an error.
pub(crate) fn left_out() -> RejectedRow {
    RejectedRow {
        sqlstate: LEFT_OUT.to_owned(),
        message: LEFT_OUT_MESSAGE.to_owned(),
        ..RejectedRow::default()
    }
}
