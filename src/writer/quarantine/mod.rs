//! Rows that could not be stored, kept where an operator can look at them.

pub(crate) mod put;

use crate::postgres::error::BadRow;

/// Our own code, among Postgres's, for rows that wait for a partition: more new
/// ones are needed than may be made in an hour.
pub const PARTITION_BUDGET: &str = "IN001";

/// Our own code for rows that Postgres took without an error and did not store.
pub const LEFT_OUT: &str = "IN002";

pub(crate) const LEFT_OUT_MESSAGE: &str = "Postgres took the row without an error and did not store it: a BEFORE trigger that returns NULL, or a rule, leaves it out";

/// What is said of a row that Postgres did not store, without an error.
pub(crate) fn left_out() -> BadRow {
    BadRow {
        sqlstate: LEFT_OUT.to_owned(),
        message: LEFT_OUT_MESSAGE.to_owned(),
        ..BadRow::default()
    }
}
