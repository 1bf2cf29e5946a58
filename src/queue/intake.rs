//! Where frames enter, and the lanes in which they wait for a writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::{Budget, Loan};
use super::frame::Frame;
use crate::event::Table;

/// There is no room; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The byte budget is spent.
    #[error("too many bytes are in flight")]
    Bytes,
    /// The lanes hold as many requests as they can.
    #[error("too many requests are waiting to be written")]
    Frames,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// The senders of one table's lanes; each lane has one receiver, its writer.
#[derive(Clone, Debug)]
pub struct Lanes {
    senders: Vec<flume::Sender<Frame>>,
    next: Arc<AtomicUsize>,
}

impl Lanes {
    /// The lanes behind `senders`; there is at least one.
    pub fn new(senders: Vec<flume::Sender<Frame>>) -> Self {
        assert!(!senders.is_empty(), "a table has at least one lane");
        Self {
            senders,
            next: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Puts a frame into the emptiest lane, beginning the search at the next in turn.
    fn offer(&self, frame: Frame) -> Result<(), Full> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let lanes = self.senders.len();
        let emptiest = (0..lanes)
            .map(|step| &self.senders[(turn + step) % lanes])
            .min_by_key(|lane| lane.len())
            .expect("a table has at least one lane");
        emptiest.try_send(frame).map_err(|error| match error {
            flume::TrySendError::Full(_) => Full::Frames,
            flume::TrySendError::Disconnected(_) => Full::Stopping,
        })
    }
}

/// What the API holds of everything downstream.
#[derive(Clone, Debug)]
pub struct Intake {
    budget: Budget,
    lanes: [Lanes; 2],
}

impl Intake {
    /// An intake into `lanes`, in the order of [`Table::ALL`].
    pub fn new(budget: Budget, lanes: [Lanes; 2]) -> Self {
        Self { budget, lanes }
    }

    /// Lends memory for a body or its rows.
    pub fn lend(&self, bytes: usize) -> Result<Loan, Full> {
        u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.budget.lend(bytes))
            .ok_or(Full::Bytes)
    }

    /// Bytes on loan and the most that can be.
    pub fn bytes(&self) -> (usize, usize) {
        (self.budget.lent(), self.budget.bytes_max())
    }

    /// Passes a frame on, or refuses it at once.
    pub fn submit(&self, frame: Frame) -> Result<(), Full> {
        let table: Table = frame.rows.table();
        self.lanes[table as usize].offer(frame)
    }
}
