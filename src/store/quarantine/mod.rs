//! Rows that could not be stored, kept where an operator can look at them.

pub mod admin;
mod put;

pub(super) use put::put;

/// Our own code, among Postgres's, for rows that wait for a partition: more new
/// ones are needed than may be made in an hour.
pub const PARTITION_BUDGET: &str = "IN001";
