//! A lane: frames in, batches into Postgres, verdicts back.
//!
//! One writer to a lane, with a connection of its own. It ends when its frames
//! end, after the last batch has committed. Keeps a batch for as long as
//! Postgres is away: whoever must not wait for that has a time limit of his own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::event::Table;
use crate::metrics::{ByReason, ByTable, EventOutcome, Metrics};
use crate::queue::Frame;

use super::batch::{Batch, Settled};
use super::connect::Target;
use super::copy::Statements;
use super::error::{Chain, Class, Trouble};
use super::keeper::Keeper;
use super::session::Session;
use super::transaction;

/// When a batch is large or old enough to be written.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Rows.
    pub rows_max: usize,
    /// Bytes of rows.
    pub bytes_max: usize,
    /// Time since its first frame arrived.
    pub flush_after: Duration,
}

/// How a lane gets on, for readiness.
#[derive(Debug, Default)]
pub struct LaneHealth(AtomicU8);

/// What [`LaneHealth`] can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Batches are stored.
    Good,
    /// Postgres is away or busy; the lane waits for it.
    Away,
    /// An operator has to mend something; the lane tries again now and then.
    Fault,
}

impl LaneHealth {
    /// How the lane got on at its last attempt.
    pub fn get(&self) -> Health {
        match self.0.load(Ordering::Relaxed) {
            0 => Health::Good,
            1 => Health::Away,
            _ => Health::Fault,
        }
    }

    fn set(&self, health: Health) {
        self.0.store(health as u8, Ordering::Relaxed);
    }
}

/// The one writer of a lane.
#[derive(Debug)]
pub struct Writer {
    /// The table that the lane's frames are for.
    pub table: Table,
    /// Where Postgres is.
    pub target: Target,
    /// When to write.
    pub limits: BatchLimits,
    /// Makes partitions.
    pub keeper: Arc<Keeper>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Says how it goes.
    pub health: Arc<LaneHealth>,
}

/// After this many batches without a duplicate, writing goes the straight way
/// again. A replay is thousands of batches of them, a client's retry is one.
const CLEAN_BATCHES_TO_TRUST: u32 = 16;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// What an operator has to mend is not mended in a second.
const FAULT_BACKOFF: Duration = Duration::from_secs(5);

/// A writer's connection.
#[derive(Debug)]
struct Open {
    session: Session,
    statements: Statements,
}

impl Writer {
    /// Writes frames until there are no more to come.
    pub async fn run(self, frames: flume::Receiver<Frame>) {
        let mut open = None;
        let mut suspicion = 0;
        while let Some(batch) = self.gather(&frames).await {
            self.store(batch, &mut open, &mut suspicion).await;
        }
    }

    /// Waits for a frame, then takes what comes until a limit is reached.
    async fn gather(&self, frames: &flume::Receiver<Frame>) -> Option<Batch> {
        let first = frames.recv_async().await.ok()?;
        let (mut rows, mut bytes) = (first.rows.len(), first.rows.bytes().len());
        let mut gathered = vec![first];
        let deadline = tokio::time::Instant::now() + self.limits.flush_after;
        while rows < self.limits.rows_max && bytes < self.limits.bytes_max {
            let next = match frames.try_recv() {
                Ok(frame) => frame,
                Err(flume::TryRecvError::Disconnected) => break,
                Err(flume::TryRecvError::Empty) => {
                    match tokio::time::timeout_at(deadline, frames.recv_async()).await {
                        Ok(Ok(frame)) => frame,
                        Ok(Err(_)) | Err(_) => break,
                    }
                }
            };
            rows += next.rows.len();
            bytes += next.rows.bytes().len();
            gathered.push(next);
        }
        Some(Batch::new(self.table, gathered))
    }

    /// Stores a batch, however long it takes.
    async fn store(&self, mut batch: Batch, open: &mut Option<Open>, suspicion: &mut u32) {
        let mut backoff = BACKOFF_MIN;
        let mut failures = 0_u32;
        loop {
            let trouble = match self.attempt(batch, open, suspicion).await {
                Ok(()) => {
                    if failures > 0 {
                        info!(table = %self.table, failures, "stored the batch that Postgres would not take");
                    }
                    return self.health.set(Health::Good);
                }
                Err((back, trouble)) => {
                    batch = back;
                    trouble
                }
            };
            let class = trouble.class();
            let reason = class.as_str();
            self.metrics
                .store_errors
                .get_or_create(&ByReason {
                    table: self.table,
                    reason,
                })
                .inc();
            failures += 1;
            let mut pause = backoff;
            match class {
                Class::NoPartition => self.keeper.forget(self.table),
                Class::Fault => {
                    *open = None;
                    pause = FAULT_BACKOFF;
                    if self.health.get() != Health::Fault {
                        error!(table = %self.table, error = %Chain(&trouble), "cannot store events until this is mended; keeping them");
                    }
                    self.health.set(Health::Fault);
                }
                Class::Away | Class::Duplicate | Class::BadRow(_) => {
                    *open = None;
                    // What we sent last may have been committed all the same.
                    *suspicion = CLEAN_BATCHES_TO_TRUST;
                    if self.health.get() == Health::Good {
                        warn!(table = %self.table, error = %Chain(&trouble), "cannot store events now, retrying");
                    }
                    self.health.set(Health::Away);
                }
            }
            tokio::time::sleep(jitter(pause)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Stores a batch, or gives it back.
    async fn attempt(
        &self,
        batch: Batch,
        open: &mut Option<Open>,
        suspicion: &mut u32,
    ) -> Result<(), (Batch, Trouble)> {
        let connected = match open.take() {
            Some(connected) => Ok(connected),
            None => self.connect().await,
        };
        let connected = match connected {
            Ok(connected) => open.insert(connected),
            Err(trouble) => return Err((batch, trouble)),
        };
        let times = batch.times();
        let batch = match self
            .keeper
            .cover(&mut connected.session, self.table, times)
            .await
        {
            Ok(refused) if refused.is_empty() => batch,
            Ok(refused) => batch.refuse(|at| refused.iter().any(|range| range.contains(at.0))),
            Err(trouble) => return Err((batch, trouble)),
        };
        if batch.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let probe = *suspicion > 0;
        let client = &connected.session.client;
        match transaction::store(client, &connected.statements, &batch, probe).await {
            Ok(settled) => {
                self.count(&batch, &settled, started, probe);
                *suspicion = match settled.duplicates.is_empty() {
                    true => suspicion.saturating_sub(1),
                    false => CLEAN_BATCHES_TO_TRUST,
                };
                batch.settle(settled);
                Ok(())
            }
            Err(trouble) => Err((batch, trouble)),
        }
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let session = Session::open(&self.target, None).await?;
        let statements = Statements::prepare(&session.client, self.table)
            .await
            .map_err(|source| Trouble::Statement {
                doing: "prepare statements",
                source,
            })?;
        Ok(Open {
            session,
            statements,
        })
    }

    fn count(&self, batch: &Batch, settled: &Settled, started: Instant, probed: bool) {
        let table = self.table;
        let by_table = ByTable { table };
        let (duplicates, quarantined) = (settled.duplicates.len(), settled.quarantined.len());
        let stored = batch.len() - duplicates - quarantined;
        self.metrics.count(table, EventOutcome::Stored, stored);
        self.metrics
            .count(table, EventOutcome::Duplicate, duplicates);
        self.metrics
            .count(table, EventOutcome::Quarantined, quarantined);
        if probed {
            self.metrics.merges.get_or_create(&by_table).inc();
        }
        #[expect(clippy::cast_precision_loss, reason = "a histogram of batch sizes")]
        let rows = batch.len() as f64;
        self.metrics
            .batch_rows
            .get_or_create(&by_table)
            .observe(rows);
        self.metrics
            .copy_seconds
            .get_or_create(&by_table)
            .observe(started.elapsed().as_secs_f64());
        if quarantined > 0 {
            warn!(%table, quarantined, "Postgres refused rows; they are in ingest_quarantine");
        }
    }
}

/// Between half of `pause` and all of it, so that writers do not come back all at once.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
