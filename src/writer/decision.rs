//! What the ledger's row means for a batch: settle, store, take over, or stop.
//!
//! Keeps one invariant: a batch is settled only by a COMMIT that this opening
//! sent for it and that the row still shows. A watermark that is further than
//! this opening's frames never is a reason: it may be another copy's.
//! Pure: no IO, no clock, no async. Simulated histories drive it in the tests.

use uuid::Uuid;

use crate::accounts::ledger::Mark;
use crate::log::spool::recover::openings::{History, Vouched};

/// An opening that has taken over its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Tells it from all others.
    pub(crate) id: Uuid,
    /// Its place among them: later ones fence earlier ones off.
    pub(crate) epoch: u64,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The COMMIT whose answer is missing took effect: take the result that was kept.
    Committed,
    /// Store it. The entry is made on condition that the watermark is this.
    Store {
        /// The watermark as it is.
        seen: u64,
    },
    /// The row is older than this opening: the database was restored. Take it
    /// over again, and ask again.
    TakeOver,
    /// A later opening holds the row. The batch is neither settled nor dropped.
    Fenced,
}

/// Decides on a batch that ends with frame `last`. `sent`: this opening has sent
/// a COMMIT for that very batch and does not know what came of it.
pub(crate) fn decide(row: Option<Mark>, me: Opening, last: u64, sent: bool) -> Decision {
    let Some(row) = row else {
        return Decision::TakeOver;
    };
    match row.opening {
        // The number is only for order: a restored database repeats numbers.
        Some(opening) if opening == me.id => match sent && row.settled == last {
            true => Decision::Committed,
            false => Decision::Store { seen: row.settled },
        },
        _ if row.epoch < me.epoch => Decision::TakeOver,
        _ => Decision::Fenced,
    }
}

/// What an opening makes of a row that it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// The watermark from here on: frames up to it are passed over.
    pub(crate) settled: u64,
    /// The watermark that was found is another copy's, in whole or in part: of
    /// the stream's accepted items so many lie before those that are given.
    /// What the account holds beyond that is other copies' work.
    pub(crate) passed: Option<u64>,
}

/// Takes over a row: how much of what it says is true of this directory.
///
/// `passed` are the stream's items that are no longer in the directory.
pub(crate) fn take_over(row: Mark, history: &History, stream: u8, passed: u64) -> TakenOver {
    match history.vouched(row.opening, row.settled) {
        Vouched::UpToWatermark => TakenOver {
            settled: row.settled,
            passed: None,
        },
        Vouched::UpTo { sequence, accepted } => TakenOver {
            settled: sequence,
            passed: accepted.get(usize::from(stream)).copied(),
        },
        Vouched::Nothing => TakenOver {
            settled: 0,
            passed: Some(passed),
        },
    }
}

#[cfg(test)]
mod tests;
