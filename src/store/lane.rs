//! A lane: frames of one stream in, batches into Postgres, verdicts back.
//!
//! One writer to a lane, with a connection of its own. It ends when its frames
//! end, after the last batch has committed. Keeps a batch for as long as
//! Postgres is away; what comes meanwhile stays in the spool.

mod idle;
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
use super::checks::Board;
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
    /// Looks at each connection before anything is written through it.
    pub checks: Arc<Board>,
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

/// A batch that failed this often in a row with errors that pass by themselves,
/// within about a second, is taken apart: one of its rows may bring them about.
const FAILURES_THAT_LAST: u32 = 4;

/// So many rows set aside one after the other, or so many batches of nothing
/// else, are worth an operator's look.
const SET_ASIDE_ROWS: usize = 10;
const SET_ASIDE_BATCHES: u32 = 3;

/// What a writer writes through.
#[derive(Default)]
struct Sink {
    open: Option<Open>,
    /// Batches to come that are to be checked for duplicates first.
    suspicion: u32,
    /// Attempts that failed since a batch was settled, and the pause after the last.
    failures: u32,
    backoff: Duration,
    /// Rows that were set aside since one was stored, and batches of them.
    set_aside_rows: usize,
    set_aside_batches: u32,
}

impl Sink {
    /// How the lane gets on, right after a batch was settled.
    fn health(&self) -> Health {
        match self.set_aside_rows >= SET_ASIDE_ROWS || self.set_aside_batches >= SET_ASIDE_BATCHES {
            true => Health::SettingAside,
            false => Health::Good,
        }
    }

    /// Counts the rows of a batch.
    fn count(&mut self, rows: usize, settled: &Settled) {
        let set_aside = settled.quarantined.len();
        if settled.duplicates.len() + set_aside < rows {
            (self.set_aside_rows, self.set_aside_batches) = (0, 0);
        } else if set_aside > 0 {
            self.set_aside_rows = self.set_aside_rows.saturating_add(set_aside);
            self.set_aside_batches = self.set_aside_batches.saturating_add(1);
        }
    }
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
                    let gathering = self.gather(&mut source, &mut gathered);
                    self.ping_while(gathering, &mut sink).await;
                    match gathered.batch(self.stream.table) {
                        Some(batch) => batch,
                        None => return,
                    }
                }
            };
            let undecided = {
                let mut storing = pin!(self.store(batch, &mut sink));
                tokio::select! {
                    biased;
                    undecided = &mut storing => undecided,
                    () = self.fill(&mut source, &mut gathered) => {
                        next = gathered.batch(self.stream.table);
                        storing.await
                    }
                }
            };
            if let Some(batch) = undecided {
                // The rows behind it tell whether its rows or the table are at fault.
                if let Some(behind) = next.take() {
                    gathered = Gathered::of(behind, &self.limits);
                }
                let mut grown = Gathered::of(batch, &self.limits);
                grown.take_from(&mut gathered, &self.limits);
                next = grown.batch(self.stream.table);
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
                    frames.reconcile(open.totals.rows());
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

    /// Stores a batch, however long it takes. Gives it back, after a pause, if
    /// only the rows behind it can tell what is wrong.
    async fn store(&self, mut batch: Batch, sink: &mut Sink) -> Option<Batch> {
        let mut backoff = sink.backoff.max(BACKOFF_MIN);
        // What the last attempt came to, if only the answer to its COMMIT is missing.
        let mut outcome = None;
        self.status.is_storing(true);
        loop {
            match self.attempt(&mut batch, sink, &mut outcome).await {
                Ok(settled) => {
                    let failures = std::mem::take(&mut sink.failures);
                    if failures > 0 {
                        info!(table = %self.stream.table, failures, "Postgres takes events again");
                    }
                    sink.backoff = Duration::ZERO;
                    if self.status.set(sink.health()) < sink.health() {
                        warn!(table = %self.stream.table, "every row that came last was set aside; see `recsys-ingest quarantine list`");
                    }
                    self.status.is_storing(false);
                    self.drain.settled(batch.bytes());
                    self.spool.retire(self.stream.number, batch.last_sequence());
                    batch.settle(settled);
                    return None;
                }
                // A COMMIT that was under way when its connection broke has been
                // carried out meanwhile. The ledger says so to whoever asks anew.
                Err(Trouble::Twin) if outcome.is_some() => sink.open = None,
                Err(trouble) => {
                    sink.failures = sink.failures.saturating_add(1);
                    match trouble.class() {
                        Class::NoPartition => self.keeper.forget(self.stream.table),
                        // The connection works.
                        Class::Undecided => {}
                        _ => sink.let_go(&trouble),
                    }
                    self.pause_after(&trouble, &mut backoff).await;
                    // Not while a COMMIT may be under way: it is of this batch as it is.
                    if trouble.asks_for_more_rows() && outcome.is_none() {
                        sink.backoff = backoff;
                        return Some(batch);
                    }
                }
            }
        }
    }

    /// Says what is wrong, once per change for the worse, and waits.
    async fn pause_after(&self, trouble: &Trouble, backoff: &mut Duration) {
        let table = self.stream.table;
        self.checks.note_trouble(trouble);
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
            Class::Undecided => {
                if self.status.set(Health::Undecided) < Health::Undecided {
                    warn!(%table, error = %Chain(trouble), "cannot tell yet whether rows or the table are at fault; they are kept in the spool");
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
            .filter_map(|at| {
                let occurred = batch.key(at).occurred_at.0;
                let mut ranges = refused.iter();
                let refused = ranges.find(|refused| refused.range.contains(occurred))?;
                Some((at, waits_for_partition(refused.why)))
            })
            .collect();
        let probe = sink.suspicion > 0;
        let lasts = sink.failures >= FAILURES_THAT_LAST;
        let started = Instant::now();
        let plan = Plan {
            probe,
            held_back,
            stream: &self.stream,
            lasts,
        };
        let client = &open.session.client;
        let (settled, totals) =
            transaction::store(client, &open.statements, batch, plan, outcome).await?;
        self.status.settle(totals);
        self.count(batch, &settled);
        self.observe(batch, started, probe);
        sink.count(batch.len(), &settled);
        sink.suspicion = match settled.duplicates.is_empty() {
            true => sink.suspicion.saturating_sub(1),
            false => CLEAN_BATCHES_TO_TRUST,
        };
        Ok(settled)
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let session = Session::open(&self.target, None).await?;
        self.checks.note_transport(session.clear_text.as_deref());
        self.checks
            .admit(
                &session.client,
                self.stream.table,
                transaction::STATEMENT_LIMIT,
            )
            .await?;
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
            self.metrics.checked_batches.get_or_create(&by_table).inc();
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

fn waits_for_partition(why: &str) -> BadRow {
    BadRow {
        sqlstate: PARTITION_BUDGET.to_owned(),
        message: why.to_owned(),
        ..BadRow::default()
    }
}

/// Between half of `pause` and all of it, so that writers do not come back all at once.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
