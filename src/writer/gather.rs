//! Where a lane's records come from, and the batch that they become.
//!
//! Invariant: every wait here is cancel safe. Dropping it loses no record and delivers none twice,
//! so a lane can gather the next batch while it stores the current one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Span;

use super::batch::Batch;
use crate::accounts::status::Health;
use crate::admission::record::{Delivered, InMemory};
use crate::event::result::RecordResult;
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::log::read::{Next, Read as ReadLog};
use crate::log::record;
use crate::writer::error::Error;

/// When a batch is large or old enough to be stored.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Rows.
    pub rows_max: usize,
    /// Bytes of rows.
    pub bytes_max: usize,
    /// Time since its first record arrived.
    pub flush_after: Duration,
    /// Time since the first record arrived with a request that waits for its COMMIT.
    pub flush_waited_after: Duration,
}

/// The records of a lane.
pub trait Records: ReadLog<InMemory, RecordResult> {}

impl<L: ReadLog<InMemory, RecordResult>> Records for L {}

/// A lane's records, as they come or fetched.
pub(crate) struct Source<L> {
    reader: Reader<L>,
    /// Records that were fetched and are not in a batch yet.
    read: VecDeque<Delivered>,
    /// The health that the last failed fetch gave the lane; `None` once one has succeeded.
    failed: Option<Health>,
    /// That one has succeeded since.
    has_fetched: bool,
}

/// The lane's reader, which a blocking thread owns while it fetches.
enum Reader<L> {
    Here(Box<L>),
    Away(JoinHandle<(Box<L>, Fetched)>),
    /// A record came that this program cannot read. Nothing comes after it.
    Stuck,
}

type Fetched = anyhow::Result<Vec<FromLog>>;

/// A record as the log delivers it: without parsed rows if it was not in memory.
type FromLog = record::Delivered<Option<InMemory>, RecordResult>;

/// The records of the next batch.
#[derive(Default)]
pub(crate) struct Gathered {
    records: Vec<Delivered>,
    rows: usize,
    bytes: usize,
    /// The latest time to store the batch; `None` while it is empty.
    pub(crate) due: Option<Instant>,
    is_waited_for: bool,
}

impl<L: Records> Source<L> {
    pub(crate) fn new(records: L) -> Self {
        Self {
            reader: Reader::Here(Box::new(records)),
            read: VecDeque::new(),
            failed: None,
            has_fetched: false,
        }
    }

    /// Notes the health that a failed fetch has given the lane.
    pub(crate) fn has_failed(&mut self, health: Health) {
        (self.failed, self.has_fetched) = (Some(health), false);
    }

    /// The health to clear once a fetch succeeds after one that failed.
    pub(crate) fn recovered(&mut self) -> Option<Health> {
        self.failed.take_if(|_| self.has_fetched)
    }

    /// The lane's reader. It is always here before anything was read.
    pub(crate) fn reader(&mut self) -> Option<&mut L> {
        match &mut self.reader {
            Reader::Here(records) => Some(records),
            Reader::Away(_) | Reader::Stuck => None,
        }
    }

    /// Leaves all records in the log and returns when the log ends. A request that waits for a
    /// result learns at once that there is none.
    pub(crate) async fn abandon(self) {
        let records = match self.reader {
            Reader::Here(records) => records,
            Reader::Away(reading) => reading.await.expect("reading does not panic").0,
            Reader::Stuck => return std::future::pending().await,
        };
        // Dropping the records closes the channels of their results.
        drop(self.read);
        records.abandon().await;
    }

    /// Whether a record came that this program cannot read. Nothing comes after it.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self.reader, Reader::Stuck)
    }

    /// Takes one record, or waits until there may be one. `false`: the log has ended. May be called
    /// again after an error.
    pub(crate) async fn step(
        &mut self,
        gathered: &mut Gathered,
        limits: &BatchLimits,
    ) -> Result<bool, Error> {
        if let Some(record) = self.read.pop_front() {
            gathered.push(record, limits);
            return Ok(true);
        }
        match &mut self.reader {
            Reader::Here(records) => match records.try_next() {
                Next::Record(spooled) => {
                    let record = self.readable(spooled)?;
                    gathered.push(record, limits);
                }
                Next::Fetch => self.fetch(limits.bytes_max),
                Next::Empty => records.wait().await,
                Next::Ended => return Ok(false),
            },
            Reader::Away(reading) => {
                let (records, fetched) = reading.await.expect("reading does not panic");
                self.reader = Reader::Here(records);
                let fetched = fetched.map_err(Error::Log)?;
                self.has_fetched = true;
                for spooled in fetched {
                    let record = self.readable(spooled)?;
                    self.read.push_back(record);
                }
            }
            Reader::Stuck => std::future::pending().await,
        }
        Ok(true)
    }

    /// Fetches records that are not in memory, on a thread that may block.
    fn fetch(&mut self, bytes_max: usize) {
        if let Reader::Here(mut records) = std::mem::replace(&mut self.reader, Reader::Stuck) {
            let span = Span::current();
            self.reader = Reader::Away(tokio::task::spawn_blocking(move || {
                let fetched = span.in_scope(|| records.fetch(bytes_max));
                (records, fetched)
            }));
        }
    }

    /// Parses the rows of a record that was not in memory.
    fn readable(&mut self, record: FromLog) -> Result<Delivered, Error> {
        let sequence = record.sequence;
        let memory = match record.memory {
            Some(memory) => memory,
            None => match Rows::parse(record.payload.clone()) {
                Ok(rows) => InMemory {
                    rows,
                    reservation: None,
                    trace: None,
                    aside: None,
                },
                Err(source) => {
                    self.reader = Reader::Stuck;
                    return Err(Error::Unreadable { sequence, source });
                }
            },
        };
        let (items, rows) = (record.items, memory.rows.len());
        if usize::try_from(items) != Ok(rows) {
            self.reader = Reader::Stuck;
            return Err(Error::Miscounted {
                sequence,
                items,
                rows,
            });
        }
        Ok(Delivered {
            sequence,
            items,
            payload: record.payload,
            memory,
            result: record.result,
        })
    }
}

impl Gathered {
    fn push(&mut self, record: Delivered, limits: &BatchLimits) {
        let last = self.records.last().map_or(0, |last| last.sequence);
        assert!(
            last < record.sequence,
            "the records of a lane came out of order"
        );
        self.rows += record.memory.rows.len();
        self.bytes += record.memory.rows.framed().len();
        // Only a waiting request notices when a row is stored. Other rows wait longer for company,
        // which makes a trickle of single events much cheaper.
        if self.records.is_empty() {
            self.due = Some(Instant::now() + limits.flush_after);
        }
        if record.result.is_some() && !self.is_waited_for {
            self.is_waited_for = true;
            let soon = Instant::now() + limits.flush_waited_after;
            self.due = self.due.map(|due| due.min(soon));
        }
        self.records.push(record);
    }

    /// The records of a batch that is not stored yet, to be gathered again.
    pub(crate) fn of(batch: Batch, limits: &BatchLimits) -> Self {
        let mut gathered = Self::default();
        for record in batch.into_records() {
            gathered.push(record, limits);
        }
        gathered
    }

    /// Moves records from the front of `behind`, which come next in the stream, until this batch is
    /// full.
    pub(crate) fn take_from(&mut self, behind: &mut Self, limits: &BatchLimits) {
        let mut records = std::mem::take(behind).records.into_iter();
        while !self.is_full(limits)
            && let Some(record) = records.next()
        {
            self.push(record, limits);
        }
        for record in records {
            behind.push(record, limits);
        }
    }

    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.rows >= limits.rows_max || self.bytes >= limits.bytes_max
    }

    /// The gathered records as a batch; `None` if there are none.
    pub(crate) fn batch(&mut self, table: Table) -> Option<Batch> {
        let Self { records, .. } = std::mem::take(self);
        (!records.is_empty()).then(|| Batch::new(table, records))
    }
}
