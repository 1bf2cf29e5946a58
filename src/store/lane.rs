//! A lane: frames of one stream in, batches into Postgres, verdicts back.
//!
//! One writer to a lane, with a connection of its own. It ends when its frames
//! end, after the last batch has committed. Keeps a batch for as long as
//! Postgres is away; what comes meanwhile stays in the spool.

mod source;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::metrics::{ByReason, ByTable, EventOutcome, Metrics};
use crate::queue::{DrainRate, InMemory, Outcome};
use crate::spool::{LaneReader, Spool};

use super::batch::{Batch, Settled};
use super::connect::Target;
use super::copy::Statements;
use super::error::{BadRow, Chain, Class, Trouble};
use super::keeper::Keeper;
use super::ledger::{Stream, Totals};
use super::quarantine::PARTITION_BUDGET;
use super::session::Session;
use super::status::{Health, LaneStatus};
use super::transaction::{self, Plan};
use source::{Gathered, Source};

/// When a batch is large or old enough to be written.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Rows.
    pub rows_max: usize,
    /// Bytes of rows.
    pub bytes_max: usize,
    /// Time since its first frame arrived.
    pub flush_after: Duration,
    /// Time since the first frame arrived that somebody waits for.
    pub flush_waited_after: Duration,
}

/// The one writer of a lane.
#[derive(Debug)]
pub struct Writer {
    /// The stream that the lane carries.
    pub stream: Stream,
    /// Where Postgres is.
    pub target: Target,
    /// When to write.
    pub limits: BatchLimits,
    /// Makes partitions.
    pub keeper: Arc<Keeper>,
    /// Where settled frames are let go.
    pub spool: Spool,
    /// Measures how fast they are.
    pub drain: Arc<DrainRate>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Says how it goes.
    pub status: Arc<LaneStatus>,
}

/// The frames of a lane, as this service spools them.
pub type Frames = LaneReader<InMemory, Outcome>;

/// After this many batches without a duplicate, writing goes the straight way
/// again. A replay is thousands of batches of them, a client's retry is one.
const CLEAN_BATCHES_TO_TRUST: u32 = 16;

/// Making a partition may move rows of a default partition into it.
const COVER_LIMIT: Duration = Duration::from_secs(600);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// What an operator has to mend is not mended in a second.
const FAULT_BACKOFF: Duration = Duration::from_secs(5);

/// What a writer writes through.
#[derive(Default)]
struct Sink {
    open: Option<Open>,
    /// Batches to come that are to be checked for duplicates first.
    suspicion: u32,
}

impl Sink {
    /// Closes the connection after an error.
    fn let_go(&mut self, trouble: &Trouble) {
        let Some(open) = self.open.take() else { return };
        if matches!(trouble, Trouble::TimedOut { .. }) {
            open.session.give_up();
        }
    }
}

/// A writer's connection.
struct Open {
    session: Session,
    statements: Statements,
    /// What the ledger said when the connection was made.
    totals: Totals,
}

impl Writer {
    /// Writes frames until there are no more to come.
    ///
    /// While one batch is stored the next one is gathered and sorted, so that
    /// Postgres does not wait for us between two batches.
    pub async fn run(self, frames: Frames) {
        let (mut source, mut sink) = self.resume(frames).await;
        let mut gathered = Gathered::default();
        let mut next = None;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => {
                    self.gather(&mut source, &mut gathered).await;
                    match gathered.batch(self.stream.table) {
                        Some(batch) => batch,
                        None => return,
                    }
                }
            };
            let mut storing = pin!(self.store(batch, &mut sink));
            tokio::select! {
                biased;
                () = &mut storing => {}
                () = self.fill(&mut source, &mut gathered) => {
                    next = gathered.batch(self.stream.table);
                    storing.await;
                }
            }
            if source.is_stuck() {
                // Storing went well, but it is all that could be.
                self.status.set(Health::Fault);
            }
        }
    }

    /// Finds out how far the stream was settled in an earlier life, before any
    /// of its frames is looked at.
    async fn resume(&self, mut frames: Frames) -> (Source, Sink) {
        let mut backoff = BACKOFF_MIN;
        let mut sink = Sink::default();
        loop {
            match self.connect().await {
                Ok(open) => {
                    let settled = open.totals.settled;
                    self.status.settle(open.totals);
                    if !frames.skip_to(settled) {
                        sink.suspicion = CLEAN_BATCHES_TO_TRUST;
                    }
                    self.status.set(Health::Good);
                    sink.open = Some(open);
                    return (Source::new(frames), sink);
                }
                Err(trouble) => self.pause_after(&trouble, &mut backoff).await,
            }
        }
    }

    /// Gathers until the batch is full or due, or there is nothing more to come.
    async fn gather(&self, source: &mut Source, gathered: &mut Gathered) {
        while !gathered.is_full(&self.limits) {
            let due = gathered.due;
            let step = self.step(source, gathered);
            let more = match due {
                None => step.await,
                // Too late is as good as nothing more.
                Some(due) => tokio::time::timeout_at(due, step).await.unwrap_or(false),
            };
            if !more {
                return;
            }
        }
    }

    /// Gathers until the batch is full, or there is nothing more to come. May
    /// be dropped at any time; nothing is lost.
    async fn fill(&self, source: &mut Source, gathered: &mut Gathered) {
        while !gathered.is_full(&self.limits) && self.step(source, gathered).await {}
    }

    /// Takes a frame, or waits for one; `false`: there is nothing more to come.
    async fn step(&self, source: &mut Source, gathered: &mut Gathered) -> bool {
        match source.step(gathered, &self.limits).await {
            Ok(more) => more,
            Err(trouble @ Trouble::Frame { .. }) => {
                // Nothing that this program can do helps: keep what is there, say
                // so, and leave it to an operator. What came before is stored.
                self.status.set(Health::Fault);
                error!(table = %self.stream.table, error = %Chain(&trouble), "cannot go on storing events of this lane; restart with a version that can");
                true
            }
            Err(trouble) => {
                let mut backoff = BACKOFF_MAX;
                self.pause_after(&trouble, &mut backoff).await;
                true
            }
        }
    }

    /// Stores a batch, however long it takes.
    async fn store(&self, mut batch: Batch, sink: &mut Sink) {
        let mut backoff = BACKOFF_MIN;
        let mut failures = 0_u32;
        // What the last attempt came to, if only the answer to its COMMIT is missing.
        let mut outcome = None;
        self.status.is_storing(true);
        loop {
            match self.attempt(&mut batch, sink, &mut outcome).await {
                Ok(settled) => {
                    if failures > 0 {
                        info!(table = %self.stream.table, failures, "Postgres takes events again");
                    }
                    self.status.set(Health::Good);
                    self.status.is_storing(false);
                    self.drain.settled(batch.bytes());
                    self.spool.retire(self.stream.number, batch.last_sequence());
                    return batch.settle(settled);
                }
                // A COMMIT that was under way when its connection broke has been
                // carried out meanwhile. The ledger says so to whoever asks anew.
                Err(Trouble::Twin) if outcome.is_some() => sink.open = None,
                Err(trouble) => {
                    failures += 1;
                    match trouble.class() {
                        Class::NoPartition => self.keeper.forget(self.stream.table),
                        _ => sink.let_go(&trouble),
                    }
                    self.pause_after(&trouble, &mut backoff).await;
                }
            }
        }
    }

    /// Says what is wrong, once per change for the worse, and waits.
    async fn pause_after(&self, trouble: &Trouble, backoff: &mut Duration) {
        let table = self.stream.table;
        let class = trouble.class();
        let reason = class.as_str();
        self.metrics
            .store_errors
            .get_or_create(&ByReason { table, reason })
            .inc();
        let mut pause = *backoff;
        match class {
            Class::Fault => {
                pause = FAULT_BACKOFF;
                if self.status.set(Health::Fault) < Health::Fault {
                    error!(%table, error = %Chain(trouble), "cannot store events until this is mended; they are kept in the spool");
                }
            }
            Class::NoPartition => debug!(%table, "a partition is gone; making it again"),
            Class::Away | Class::Duplicate | Class::BadRow(_) => {
                if self.status.set(Health::Away) < Health::Away {
                    warn!(%table, error = %Chain(trouble), "cannot store events now, retrying; they are kept in the spool");
                }
            }
        }
        tokio::time::sleep(jitter(pause)).await;
        *backoff = (*backoff * 2).min(BACKOFF_MAX);
    }

    /// Stores a batch, or says why not.
    async fn attempt(
        &self,
        batch: &mut Batch,
        sink: &mut Sink,
        outcome: &mut Option<Settled>,
    ) -> Result<Settled, Trouble> {
        let open = match sink.open.take() {
            Some(open) => sink.open.insert(open),
            None => {
                let open = sink.open.insert(self.connect().await?);
                if open.totals.settled >= batch.last_sequence() {
                    // The COMMIT whose answer was lost did take effect.
                    self.status.settle(open.totals);
                    let settled = outcome.take();
                    if let Some(settled) = &settled {
                        self.count(batch, settled);
                    }
                    return Ok(settled.unwrap_or_default());
                }
                open
            }
        };
        let table = self.stream.table;
        let covering = self.keeper.cover(&mut open.session, table, batch.times());
        let Ok(refused) = tokio::time::timeout(COVER_LIMIT, covering).await else {
            return Err(Trouble::TimedOut {
                doing: "make partitions",
                seconds: COVER_LIMIT.as_secs(),
            });
        };
        let refused = refused?;
        let held_back = (0..batch.len())
            .filter(|&at| {
                let occurred = batch.key(at).occurred_at.0;
                refused.iter().any(|range| range.contains(occurred))
            })
            .map(|at| (at, waits_for_partition()))
            .collect();
        let probe = sink.suspicion > 0;
        let started = Instant::now();
        let plan = Plan {
            probe,
            held_back,
            stream: &self.stream,
        };
        let client = &open.session.client;
        let (settled, totals) =
            transaction::store(client, &open.statements, batch, plan, outcome).await?;
        self.status.settle(totals);
        self.count(batch, &settled);
        self.observe(batch, started, probe);
        sink.suspicion = match settled.duplicates.is_empty() {
            true => sink.suspicion.saturating_sub(1),
            false => CLEAN_BATCHES_TO_TRUST,
        };
        Ok(settled)
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let session = Session::open(&self.target, None).await?;
        let prepared = async {
            let statements = Statements::prepare(&session.client, self.stream.table).await?;
            let totals = self.stream.read(&session.client).await?;
            Ok((statements, totals))
        };
        let doing = "prepare statements";
        let limit = transaction::STATEMENT_LIMIT;
        let (statements, totals) = super::error::limited(doing, limit, prepared).await?;
        Ok(Open {
            session,
            statements,
            totals,
        })
    }

    fn count(&self, batch: &Batch, settled: &Settled) {
        let table = self.stream.table;
        let (duplicates, quarantined) = settled.counts();
        let stored = batch.len() - duplicates - quarantined;
        self.metrics.count(table, EventOutcome::Stored, stored);
        self.metrics
            .count(table, EventOutcome::Duplicate, duplicates);
        self.metrics
            .count(table, EventOutcome::Quarantined, quarantined);
        if quarantined > 0 {
            warn!(%table, quarantined, "rows were set aside; see `recsys-ingest quarantine list`");
        }
    }

    fn observe(&self, batch: &Batch, started: Instant, probed: bool) {
        let by_table = ByTable {
            table: self.stream.table,
        };
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
    }
}

fn waits_for_partition() -> BadRow {
    BadRow {
        sqlstate: PARTITION_BUDGET.to_owned(),
        message: "needs a new partition, and no more may be made this hour; it is stored as soon as one may"
            .to_owned(),
        ..BadRow::default()
    }
}

/// Between half of `pause` and all of it, so that writers do not come back all at once.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
