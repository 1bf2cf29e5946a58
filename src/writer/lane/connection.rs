//! A lane's connection, and what it remembers of the last batches.

use std::sync::Arc;

use crate::accounts::erasure::subjects::ErasedSubjects;
use crate::accounts::status::Health;
use crate::backoff::Backoff;
use crate::postgres::session::Session;
use crate::writer::batch::BatchResult;
use crate::writer::error::Error;
use crate::writer::opening::Held;
use crate::writer::statements::Statements;

/// This many quarantined rows with no stored row between them, or this many batches of them, turn
/// the lane's health to `SettingAside`.
const SET_ASIDE_ROWS: usize = 10;
const SET_ASIDE_BATCHES: u32 = 3;

/// After this many batches without a duplicate, the lane uses the fast path again. A replay is
/// thousands of batches of duplicates, a client's retry is one.
pub(super) const CLEAN_BATCHES_TO_TRUST: u32 = 16;

/// The lane's connection, and what it remembers of the last batches.
pub(super) struct LaneConnection {
    pub(super) open: Option<OpenConnection>,
    /// The number of batches that still have to be checked for duplicates first.
    pub(super) checks_left: u32,
    /// Failed attempts since the last committed batch.
    pub(super) failures: u32,
    /// Goes on while a batch is handed back to take in more rows.
    pub(super) backoff: Backoff,
    /// Quarantined rows since a row was stored, and the batches that they came in.
    set_aside_rows: usize,
    set_aside_batches: u32,
}

impl LaneConnection {
    pub(super) fn new(open: OpenConnection, checks_left: u32, backoff: Backoff) -> Self {
        Self {
            open: Some(open),
            checks_left,
            failures: 0,
            backoff,
            set_aside_rows: 0,
            set_aside_batches: 0,
        }
    }

    /// The lane's health right after a batch was committed.
    pub(super) fn health(&self) -> Health {
        match self.set_aside_rows >= SET_ASIDE_ROWS || self.set_aside_batches >= SET_ASIDE_BATCHES {
            true => Health::SettingAside,
            false => Health::Good,
        }
    }

    /// Counts the quarantined rows of a batch. A stored row resets the count.
    pub(super) fn count(&mut self, result: &BatchResult) {
        let set_aside = result.quarantined.len();
        if result.stored > 0 {
            (self.set_aside_rows, self.set_aside_batches) = (0, 0);
        } else if set_aside > 0 {
            self.set_aside_rows = self.set_aside_rows.saturating_add(set_aside);
            self.set_aside_batches = self.set_aside_batches.saturating_add(1);
        }
    }
}

impl LaneConnection {
    /// Closes the connection after an error. After a timeout its session is ended at the server.
    pub(super) fn let_go(&mut self, error: &Error) {
        let Some(open) = self.open.take() else { return };
        if error.is_timeout() {
            open.session.give_up();
        }
    }
}

/// A connection that passed the checks, with its statements and its take-over.
pub(super) struct OpenConnection {
    pub(super) session: Session,
    pub(super) statements: Statements,
    pub(super) held: Arc<Held>,
    /// The watermark that the next ledger update replaces.
    pub(super) seen: u64,
    /// The users who were erased, by the number of erasures that the ledger row has.
    pub(super) erased: ErasedSubjects,
    pub(super) erasures: i64,
}
