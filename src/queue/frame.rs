//! One request's rows on their way, and what became of them.

use tokio::sync::oneshot;

use super::budget::Loan;
use crate::event::Rows;

/// One request's accepted rows for one table.
#[derive(Debug)]
pub struct Frame {
    /// The rows, already in COPY's binary form.
    pub rows: Rows,
    /// The memory that the rows take.
    pub loan: Loan,
    /// Where to say what became of them; nobody may be listening.
    pub verdict: oneshot::Sender<Verdict>,
}

/// What became of a frame.
pub type Verdict = Result<Outcome, Failure>;

/// The frame's rows are settled: each is stored, was stored before, or is in
/// quarantine, and the transaction that says so has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that were stored already, by their place in the frame.
    pub duplicates: Vec<u32>,
    /// Rows that Postgres refused.
    pub quarantined: Vec<Quarantined>,
}

/// A row that Postgres refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its place in the frame.
    pub row: u32,
    /// Postgres's five-character code.
    pub sqlstate: String,
    /// Postgres's words.
    pub message: String,
}

/// Why a frame's rows are not stored, none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// They need more new partitions than may be made in an hour.
    #[error("the events need more new partitions than may be made in an hour")]
    PartitionBudget,
}
