//! Where frames enter: the last look at whether there is room for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::budget::{Budget, Loan};
use super::drain::DrainRate;
use super::frame::{Frame, Outcome};
use crate::event::{Rows, Table};
use crate::spool::{Entry, Refused, Spool};

/// There is no room; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The byte budget is spent.
    #[error("too many bytes are in flight")]
    Bytes,
    /// The disk takes longer than requests come in.
    #[error("too many requests are waiting for the disk")]
    Frames,
    /// The spool has reached its cap, or the disk its reserve.
    #[error("the spool is full, because Postgres is away or too slow")]
    Spool,
    /// The disk does not work.
    #[error("the disk of the spool does not take writes")]
    Disk,
    /// A later opening of this spool stores its events.
    #[error("this instance is fenced off: a later start on a copy of its spool took over")]
    FencedOff,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl From<Refused> for Full {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full | Refused::TooLarge => Full::Spool,
            Refused::Failed => Full::Disk,
        }
    }
}

/// What stays in memory of a frame while its lane keeps up.
#[derive(Debug)]
pub struct InMemory {
    /// The rows, so that they need not be parsed again.
    pub rows: Rows,
    /// The memory that they take.
    pub loan: Loan,
}

/// The number of a table's lane among the spool's streams: growing the number
/// of writers leaves the numbers of the others as they are.
pub fn stream(table: Table, shard: u8) -> u8 {
    shard * 2 + table as u8
}

/// The table whose rows a stream carries.
pub fn table_of(stream: u8) -> Table {
    Table::ALL[usize::from(stream % 2)]
}

/// What the API holds of everything downstream.
#[derive(Clone, Debug)]
pub struct Intake {
    budget: Budget,
    entries: flume::Sender<Entry<InMemory, Outcome>>,
    spool: Spool,
    segment_bytes: u64,
    drain: Arc<DrainRate>,
    shards: u8,
    turn: Arc<AtomicUsize>,
    fenced_off: Arc<AtomicBool>,
}

impl Intake {
    /// An intake whose frames go into `entries`, to `shards` lanes for each table,
    /// until it is `fenced_off`.
    pub fn new(
        budget: Budget,
        entries: flume::Sender<Entry<InMemory, Outcome>>,
        spool: Spool,
        segment_bytes: u64,
        drain: Arc<DrainRate>,
        shards: u8,
        fenced_off: Arc<AtomicBool>,
    ) -> Self {
        Self {
            budget,
            entries,
            spool,
            segment_bytes,
            drain,
            shards,
            turn: Arc::default(),
            fenced_off,
        }
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

    /// Whether a body of `bytes` could be spooled: said before any work is done
    /// for it.
    pub fn has_room(&self, bytes: usize) -> Result<(), Full> {
        self.is_not_fenced_off()?;
        Ok(self.spool.has_room(bytes)?)
    }

    /// What is taken after that would lie in the spool until an operator comes.
    fn is_not_fenced_off(&self) -> Result<(), Full> {
        match self.fenced_off.load(Ordering::Relaxed) {
            true => Err(Full::FencedOff),
            false => Ok(()),
        }
    }

    /// The spool behind the intake.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Passes a frame on, or refuses it at once. `durable` is told once the
    /// frame is on disk.
    pub fn submit(
        &self,
        frame: Frame,
        durable: Option<oneshot::Sender<Result<(), Refused>>>,
    ) -> Result<(), Full> {
        self.is_not_fenced_off()?;
        let table: Table = frame.rows.table();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % usize::from(self.shards);
        let shard = u8::try_from(turn).expect("the remainder of a u8 is one");
        let entry = Entry {
            stream: stream(table, shard),
            items: u32::try_from(frame.rows.len()).expect("a body is far smaller than 4 GiB"),
            payload: frame.rows.framed().clone(),
            durable,
            loan: InMemory {
                rows: frame.rows,
                loan: frame.loan,
            },
            verdict: frame.verdict,
        };
        self.entries.try_send(entry).map_err(|error| match error {
            flume::TrySendError::Full(_) => Full::Frames,
            flume::TrySendError::Disconnected(_) => Full::Stopping,
        })
    }

    /// When it is worth coming back after a refusal, from the measured rate at
    /// which rows leave, and spread so that clients do not come back together.
    pub fn retry_after(&self, full: Full) -> Duration {
        let now = Instant::now();
        let wait = match full {
            Full::Stopping => Duration::from_secs(1),
            Full::Disk | Full::FencedOff => Duration::from_secs(10),
            // A quarter of the budget is room for many bodies.
            Full::Bytes | Full::Frames => {
                self.drain.time_for(self.budget.bytes_max() as u64 / 4, now)
            }
            // Room comes back a segment at a time.
            Full::Spool => self.drain.time_for(self.segment_bytes, now),
        };
        wait.max(Duration::from_secs(1))
            .mul_f64(rand::random_range(1.0..1.5))
    }
}
