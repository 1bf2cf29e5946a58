//! One request's rows on their way, and what became of them.

use tokio::sync::oneshot;

use super::memory::Loan;
use crate::event::row::rows::Rows;

/// One request's accepted rows for one table.
#[derive(Debug)]
pub struct Frame {
    /// The rows, already in COPY's binary form.
    pub rows: Rows,
    /// The memory that the rows take.
    pub loan: Loan,
    /// Where to say what became of them, if somebody waits for that.
    pub verdict: Option<oneshot::Sender<Verdict>>,
}

/// What became of a frame, once the transaction that settles it has committed.
pub type Verdict = Outcome;

/// The frame's rows are settled: those that are not listed here are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that were stored already, by their place in the frame.
    pub duplicates: Vec<u32>,
    /// Rows that were set aside.
    pub quarantined: Vec<Quarantined>,
}

/// A row that was set aside in `ingest_quarantine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its place in the frame.
    pub row: u32,
    /// Postgres's five-character code, or ours (`IN…`).
    pub sqlstate: String,
    /// Why, in words.
    pub message: String,
}
