//! A lane: records of one stream in, batches into Postgres, results back.
//!
//! Each lane has one writer with one connection. It ends after its last record has committed. It
//! keeps a batch while Postgres is unreachable; new records stay in the spool. It stops when a
//! later opening of the spool fences this one; then all records stay there.

pub(crate) mod connection;
pub(crate) mod idle;
pub(crate) mod resume;
pub(crate) mod store;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Level, Span, debug, debug_span, enabled, error, error_span, info};

use super::batch::Batch;
use super::gather::{BatchLimits, Gathered, Records, Source};
use super::opening::Opening;

use crate::accounts::board::Board;
use crate::accounts::ledger::{Holder, Stream};
use crate::accounts::status::{Health, LaneStatus};
use crate::backoff::Backoff;
use crate::drain_rate::DrainRate;
use crate::log::read::Acknowledge;
use crate::metrics::Metrics;
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::connect::Target;
use crate::postgres::error::ErrorChain;
use crate::writer::error::{Error, ErrorKind};

/// The one writer of a lane.
#[derive(Debug)]
pub struct Writer {
    /// The stream that the lane stores.
    pub stream: Stream,
    /// How to reach Postgres.
    pub target: Target,
    /// When a batch is stored.
    pub limits: BatchLimits,
    /// The take-over of the ledger rows, which all lanes share.
    pub opening: Arc<Opening>,
    /// Creates partitions.
    pub maintainer: Arc<PartitionMaintainer>,
    /// Receives the acks.
    pub log: Arc<dyn Acknowledge>,
    /// Measures the drain rate.
    pub drain: Arc<DrainRate>,
    /// Counts batches, rows and errors.
    pub metrics: Arc<Metrics>,
    /// The lane's health and totals.
    pub status: Arc<LaneStatus>,
    /// Checks each connection before anything is written through it.
    pub checks: Arc<Board>,
    /// Ends the lane before the log ends: after its batch, or without it if that takes too long.
    pub leave: CancellationToken,
}

const BACKOFF_MAX: Duration = Duration::from_secs(2);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), BACKOFF_MAX);

/// Time to store a batch once the lane is to leave: nearly all are stored sooner. What is given up is
/// in the log, and whoever reads the stream next stores it.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// The span of a lane, which all its log lines carry. Of the highest level, so that a filter that
/// lets a line pass lets its span pass, too.
pub(crate) fn span_of(stream: &Stream) -> Span {
    let Stream { table, shard, .. } = stream;
    error_span!("lane", %table, shard)
}

/// The span of a batch of whose records some have a place in a trace: what is logged of it names them.
/// Others have none, and all have none while the level is off.
fn span_of_batch(stream: &Stream, batch: &Batch) -> Span {
    if !enabled!(Level::DEBUG) {
        return Span::none();
    }
    let traces: Vec<&str> = batch.traces().collect();
    let Stream { table, shard, .. } = stream;
    match traces.is_empty() {
        true => Span::none(),
        false => debug_span!("batch", %table, shard, traces = traces.join(" ")),
    }
}

/// A later opening holds the ledger rows.
struct FencedOff(Option<Holder>);

impl Writer {
    /// The span of the lane: see [`span_of`].
    pub fn span(&self) -> Span {
        span_of(&self.stream)
    }

    /// Stores records until the log ends, this process is to leave the stream, or a later opening
    /// fences this one.
    pub async fn run(self, records: impl Records) {
        let mut source = Source::new(records);
        let fenced = tokio::select! {
            biased;
            worked = self.work(&mut source) => worked.err(),
            () = self.opening.fenced() => Some(FencedOff(None)),
        };
        match fenced {
            None if !self.leave.is_cancelled() => return,
            None => {}
            Some(FencedOff(by)) => self.opening.fence(by).await,
        }
        match self.log.is_shared() {
            // The stream goes on elsewhere.
            true => {
                self.status.reset();
                if source.is_stuck() {
                    // Its reader is gone. Another version may be able to read the record.
                    return;
                }
            }
            false => {
                self.status.set(Health::Fault);
                self.status.is_storing(false);
            }
        }
        source.abandon().await;
    }

    /// While one batch is stored the next one is gathered and sorted, so that Postgres does not
    /// wait between two batches.
    async fn work(&self, source: &mut Source<impl Records>) -> Result<(), FencedOff> {
        let mut connection = tokio::select! {
            biased;
            () = self.leave.cancelled() => return Ok(()),
            connection = self.resume(source) => connection?,
        };
        let mut gathered = Gathered::default();
        let mut next = None;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => {
                    let gathering = self.gather(source, &mut gathered);
                    tokio::select! {
                        biased;
                        () = self.leave.cancelled() => return Ok(()),
                        gathered = self.ping_while(gathering, &mut connection) => gathered?,
                    }
                    match gathered.batch(self.stream.table) {
                        Some(batch) => batch,
                        None => return Ok(()),
                    }
                }
            };
            let undecided = {
                let span = span_of_batch(&self.stream, &batch);
                let mut storing = pin!(self.store(batch, &mut connection).instrument(span.clone()));
                let mut overdue = pin!(self.is_overdue());
                let stored = tokio::select! {
                    biased;
                    undecided = &mut storing => Some(undecided?),
                    () = &mut overdue => None,
                    () = self.fill(source, &mut gathered) => {
                        next = gathered.batch(self.stream.table);
                        tokio::select! {
                            biased;
                            undecided = storing => Some(undecided?),
                            () = overdue => None,
                        }
                    }
                };
                // The ledger tells the next reader whether a COMMIT was sent that took effect.
                let Some(undecided) = stored else {
                    info!("left a batch that could not be stored; it stays in the log");
                    return Ok(());
                };
                if !span.is_disabled() && undecided.is_none() {
                    span.in_scope(|| debug!("stored a batch"));
                }
                undecided
            };
            if self.leave.is_cancelled() {
                return Ok(());
            }
            if let Some(batch) = undecided {
                // The rows that follow decide whether its rows or the table are at fault.
                if let Some(behind) = next.take() {
                    gathered = Gathered::of(behind, &self.limits);
                }
                let mut grown = Gathered::of(batch, &self.limits);
                grown.take_from(&mut gathered, &self.limits);
                next = grown.batch(self.stream.table);
            }
            if source.is_stuck() {
                // Storing works, but the lane cannot get past the unreadable record.
                self.status.set(Health::Fault);
            }
        }
    }

    /// Waits until the lane was to leave and has had its time for the batch under way.
    async fn is_overdue(&self) {
        self.leave.cancelled().await;
        tokio::time::sleep(LEAVE_LIMIT).await;
    }

    /// Gathers until the batch is full or due, or the log has ended.
    async fn gather(&self, source: &mut Source<impl Records>, gathered: &mut Gathered) {
        while !gathered.is_full(&self.limits) {
            let due = gathered.due;
            let step = self.step(source, gathered);
            let more = match due {
                None => step.await,
                // The batch is due: store it as if the log had ended.
                Some(due) => tokio::time::timeout_at(due, step).await.unwrap_or(false),
            };
            if !more {
                return;
            }
        }
    }

    /// Gathers until the batch is full or the log has ended. Cancel safe.
    async fn fill(&self, source: &mut Source<impl Records>, gathered: &mut Gathered) {
        while !gathered.is_full(&self.limits) && self.step(source, gathered).await {}
    }

    /// Takes a record, or waits for one. `false`: the log has ended.
    async fn step(&self, source: &mut Source<impl Records>, gathered: &mut Gathered) -> bool {
        match source.step(gathered, &self.limits).await {
            Ok(more) => {
                let recovered = source.recovered();
                if recovered.is_some_and(|health| self.status.clear(health)) {
                    info!("the log can be read again");
                }
                more
            }
            Err(error @ (Error::Unreadable { .. } | Error::Miscounted { .. })) => {
                // This program cannot read the record, and a retry cannot help. Keep it for an
                // operator. The records before it are stored.
                self.status.set(Health::Fault);
                error!(error = %ErrorChain(&error), "cannot go on storing events of this lane; restart with a version that can");
                true
            }
            Err(error) => {
                source.has_failed(match error.class() {
                    ErrorKind::Fault => Health::Fault,
                    _ => Health::Away,
                });
                let mut backoff = Backoff::new(BACKOFF_MAX, BACKOFF_MAX);
                self.pause_after(&error, &mut backoff).await;
                true
            }
        }
    }
}
