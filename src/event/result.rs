//! What became of a record's rows, once the transaction that decides it has committed.

/// The rows that were not stored as new ones; the others are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordResult {
    /// Rows that were stored already, by their place in the record.
    pub duplicates: Vec<u32>,
    /// Rows that were put into quarantine.
    pub quarantined: Vec<QuarantinedRow>,
}

/// A row in `ingest_quarantine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// Its place in the record.
    pub row: u32,
    /// Postgres's five-character code, or one of this service (`IN…`).
    pub sqlstate: String,
    /// Why, in words.
    pub message: String,
}

/// This service's code for rows that wait for a partition: more new ones are needed than may be
/// created in an hour.
pub const PARTITION_BUDGET: &str = "IN001";

/// This service's code for rows that are older than what is kept of their table.
pub const TOO_OLD: &str = "IN003";

/// The message for such a row.
pub const TOO_OLD_MESSAGE: &str = "is older than what is kept: partitions of its time were removed, and none is made again; see --retain-exposures, --retain-interactions, --retain-assignments";

/// This service's code for rows that Postgres accepted without an error and did not store.
pub const LEFT_OUT: &str = "IN002";

/// The message for such a row.
pub const LEFT_OUT_MESSAGE: &str = "Postgres took the row without an error and did not store it: a BEFORE trigger that returns NULL, or a rule, leaves it out";
