//! The end of a log that a lane's writer reads.
//!
//! A stream is read in order, from the watermark that Postgres has of it, and each record once.
//! What is read stays in the log until it is acknowledged.

use std::fmt::Debug;

use uuid::Uuid;

use super::record::Delivered;

/// The only reader of a stream in this process.
///
/// A type parameter of the writers and not an object: it is asked for each record.
pub trait Read<M, R>: Send + 'static {
    /// Says where reading begins. Called before anything is read.
    ///
    /// Returns whether the records that come are new: none of them can be in Postgres already,
    /// apart from those that a client posted twice.
    fn start(&mut self, start: &Start) -> bool;

    /// The next record, or how to get at it. Never blocks.
    fn try_next(&mut self) -> Next<M, R>;

    /// Waits until [`Read::try_next`] returns something else than [`Next::Empty`]. Cancel safe.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;

    /// Fetches the next records, about `bytes_max` bytes and at least one record; an empty result
    /// means that [`Read::try_next`] has the next one. Blocks.
    ///
    /// # Errors
    /// Why they cannot be read. Nothing is lost: call again after a pause.
    fn fetch(&mut self, bytes_max: usize) -> anyhow::Result<Vec<Delivered<Option<M>, R>>>;

    /// Leaves all records in the log, closes the channels of their results, and returns when the
    /// log ends or another may read the stream.
    fn abandon(self) -> impl Future<Output = ()> + Send;
}

/// The log does not answer now, and will by itself: [`Read::fetch`] has it in its error's chain.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the log does not answer")]
pub struct LogAway;

/// What a stream has for its reader.
#[derive(Debug)]
pub enum Next<M, R> {
    /// A record.
    Record(Delivered<Option<M>, R>),
    /// The next records have to be fetched: call [`Read::fetch`].
    Fetch,
    /// Nothing yet: call [`Read::wait`].
    Empty,
    /// The end: no more records come in, and every record was delivered.
    Ended,
}

/// Where reading begins, from the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Records up to this sequence are in Postgres, and are skipped.
    pub watermark: u64,
    /// The watermark that the ledger row had. Higher than `watermark` if part of it is not true of
    /// this log.
    pub found: u64,
    /// Whether all of the ledger row's past is this log's.
    pub is_own: bool,
    /// Items of the stream that the ledger has counted, over all runs.
    pub decided_items: u64,
}

/// What is acknowledged to a log, and what the log knows of that.
///
/// Asked once a batch and at the start, so it is a trait object.
pub trait Acknowledge: Debug + Send + Sync {
    /// Identifies the log in the ledger. Sequences are only comparable within it.
    fn id(&self) -> Uuid;

    /// Which of the logs with this id: a copy that was made a separate log has another one.
    fn lineage(&self) -> Uuid;

    /// Identifies the hold of this process on its streams; see `docs/decisions/0008-openings.md`.
    fn opening(&self) -> Uuid;

    /// Whether other processes read streams of this log. Then a stream's ledger row is taken over
    /// by itself, and losing it costs this process that stream and nothing else.
    fn is_shared(&self) -> bool;

    /// Items of a stream that another lineage accounts for.
    fn inherited(&self, stream: u16) -> u64;

    /// Items of a stream that were accepted before this start and are no longer in the log.
    fn passed(&self, stream: u16) -> u64;

    /// What a watermark in the ledger proves of this log. `by` is the opening that has set it.
    fn proof(&self, stream: u16, by: Option<Uuid>, watermark: u64) -> Proof;

    /// Records of `stream` that are delivered and not acked, up to and including `sequence`.
    fn delivered(&self, stream: u16, sequence: u64) -> usize;

    /// Acks all records of `stream` up to and including `sequence`.
    fn ack(&self, stream: u16, sequence: u64);
}

/// What a watermark in the ledger proves about the records of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// All records up to the watermark are in Postgres.
    UpToWatermark,
    /// All records up to `sequence` are. Later ones share their sequences with those of a copy.
    UpTo {
        /// The last record that is in Postgres.
        sequence: u64,
        /// Items of the stream up to there, if they were counted.
        accepted: Option<u64>,
    },
    /// Nothing: a copy of the log has set the watermark.
    Nothing,
}
