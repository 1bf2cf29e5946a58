//! What the ledger row means for a batch: committed, store, take over, or fenced.
//!
//! Invariant: a batch is acknowledged only after a COMMIT that this opening sent for it and that
//! the ledger row still shows. A watermark beyond this opening's records proves nothing: another
//! copy of the spool may have set it.
//!
//! Pure: no IO, no clock, no async. Tests drive it with simulated histories.

use uuid::Uuid;

use crate::accounts::ledger::Mark;
use crate::log::read::Proof;

/// An opening that has taken over its ledger rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Identifies the opening.
    pub(crate) id: Uuid,
    /// Orders the openings: a later one fences earlier ones.
    pub(crate) epoch: u64,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The COMMIT with the lost answer took effect: use the saved result.
    Committed,
    /// Store it. The ledger update requires that the watermark is still `seen`.
    Store {
        /// The current watermark.
        seen: u64,
    },
    /// The ledger row is older than this opening: the database was restored. Take the rows over
    /// again, then read again.
    TakeOver,
    /// A later opening holds the row. The batch is neither acknowledged nor dropped.
    Fenced,
}

/// Decides on a batch that ends with record `last`.
///
/// `sent`: this opening sent a COMMIT for exactly this batch and does not know its result.
pub(crate) fn decide(row: Option<Mark>, me: Opening, last: u64, sent: bool) -> Decision {
    let Some(row) = row else {
        return Decision::TakeOver;
    };
    match row.opening {
        // The epoch is only an order: a restored database repeats epochs.
        Some(opening) if opening == me.id => match sent && row.watermark == last {
            true => Decision::Committed,
            false => Decision::Store {
                seen: row.watermark,
            },
        },
        _ if row.epoch < me.epoch => Decision::TakeOver,
        _ => Decision::Fenced,
    }
}

/// How an opening continues a ledger row that it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// The new watermark: records up to it are skipped.
    pub(crate) watermark: u64,
    /// Set if another copy of the spool set the watermark that was found, or part of it. The number
    /// of the stream's accepted items that come before those delivered from now on. What the ledger
    /// counts beyond it is the work of other copies.
    pub(crate) passed: Option<u64>,
}

/// Takes over a ledger row: how much of its watermark is true of this log.
///
/// `proof` is what the log says of the watermark; `passed` is the number of the stream's items that
/// are no longer in it.
pub(crate) fn take_over(watermark: u64, proof: Proof, passed: u64) -> TakenOver {
    match proof {
        Proof::UpToWatermark => TakenOver {
            watermark,
            passed: None,
        },
        Proof::UpTo { sequence, accepted } => TakenOver {
            watermark: sequence,
            passed: accepted,
        },
        Proof::Nothing => TakenOver {
            watermark: 0,
            passed: Some(passed),
        },
    }
}

#[cfg(test)]
mod tests;
