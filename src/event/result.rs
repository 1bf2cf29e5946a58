//! What became of a record's rows, once the transaction that decides it has committed.

/// Rows that are not listed here are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordResult {
    /// Rows that were stored already, by their place in the record.
    pub duplicates: Vec<u32>,
    /// Rows that were set aside.
    pub quarantined: Vec<QuarantinedRow>,
}

/// A row that was set aside in `ingest_quarantine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// Its place in the record.
    pub row: u32,
    /// Postgres's five-character code, or ours (`IN…`).
    pub sqlstate: String,
    /// Why, in words.
    pub message: String,
}

/// Our own code, among Postgres's, for rows that wait for a partition: more new
/// ones are needed than may be made in an hour.
pub const PARTITION_BUDGET: &str = "IN001";

/// Our own code for rows that Postgres took without an error and did not store.
pub const LEFT_OUT: &str = "IN002";

/// What is said of such a row.
pub const LEFT_OUT_MESSAGE: &str = "Postgres took the row without an error and did not store it: a BEFORE trigger that returns NULL, or a rule, leaves it out";
