//! A lane: records of one stream in, batches into Postgres, results back.
//!
//! Each lane has one writer with one connection. It ends after its last record has committed. It
//! keeps a batch while Postgres is unreachable; new records stay in the spool. It stops when a
//! later opening of the spool fences this one; then all records stay there.

pub(crate) mod connection;
pub(crate) mod idle;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tracing::{debug, error, info, warn};

use super::batch::{Batch, BatchResult};
use super::decision::{Decision, decide};
use super::gather::{BatchLimits, Gathered, Records, Source};
use super::ledger::Claim;
use super::opening::{Held, Opening};
use super::statements::Statements;
use super::transaction::{self, Plan, READ_ONLY_UNLESS_BEGUN, STATEMENT_LIMIT};
use connection::{LaneConnection, OpenConnection};

use crate::accounts::board::Board;
use crate::accounts::ledger::{Holder, LedgerRow, Stream};
use crate::accounts::status::{Health, LaneStatus};
use crate::backoff::{Backoff, jittered};
use crate::drain_rate::DrainRate;
use crate::event::result::PARTITION_BUDGET;
use crate::log::spool::shared::Spool;
use crate::metrics::{ByReason, ByTable, EventOutcome, Metrics};
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::connect::Target;
use crate::postgres::error::{self as postgres, ErrorChain, limited};
use crate::postgres::session::Session;
use crate::writer::error::{Error, ErrorKind, RejectedRow};

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
    pub spool: Spool,
    /// Measures the drain rate.
    pub drain: Arc<DrainRate>,
    /// Counts batches, rows and errors.
    pub metrics: Arc<Metrics>,
    /// The lane's health and totals.
    pub status: Arc<LaneStatus>,
    /// Checks each connection before anything is written through it.
    pub checks: Arc<Board>,
}

/// After this many batches without a duplicate, the lane uses the fast path again. A replay is
/// thousands of batches of duplicates, a client's retry is one.
const CLEAN_BATCHES_TO_TRUST: u32 = 16;

/// Creating a partition may move rows from a DEFAULT partition into it.
const COVER_LIMIT: Duration = Duration::from_secs(600);

const BACKOFF_MAX: Duration = Duration::from_secs(2);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), BACKOFF_MAX);
/// An operator needs longer than a second.
const FAULT_BACKOFF: Duration = Duration::from_secs(5);

/// A batch with this many failed attempts, within about a second, goes to the checked path even if
/// its error usually passes by itself: one of its rows may cause it.
const FAILURES_THAT_LAST: u32 = 4;

/// A later opening holds the ledger rows.
struct FencedOff(Option<Holder>);

impl Writer {
    /// Stores records until the log ends or a later opening fences this one.
    pub async fn run(self, records: Records) {
        let mut source = Source::new(records);
        let fenced = tokio::select! {
            biased;
            worked = self.work(&mut source) => worked.err(),
            () = self.opening.fenced() => Some(FencedOff(None)),
        };
        if let Some(FencedOff(by)) = fenced {
            self.opening.fence(by).await;
            self.status.set(Health::Fault);
            self.status.is_storing(false);
            source.abandon().await;
        }
    }

    /// While one batch is stored the next one is gathered and sorted, so that Postgres does not
    /// wait between two batches.
    async fn work(&self, source: &mut Source) -> Result<(), FencedOff> {
        let mut connection = self.resume(source).await?;
        let mut gathered = Gathered::default();
        let mut next = None;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => {
                    let gathering = self.gather(source, &mut gathered);
                    self.ping_while(gathering, &mut connection).await?;
                    match gathered.batch(self.stream.table) {
                        Some(batch) => batch,
                        None => return Ok(()),
                    }
                }
            };
            let undecided = {
                let mut storing = pin!(self.store(batch, &mut connection));
                tokio::select! {
                    biased;
                    undecided = &mut storing => undecided?,
                    () = self.fill(source, &mut gathered) => {
                        next = gathered.batch(self.stream.table);
                        storing.await?
                    }
                }
            };
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

    /// Takes the ledger rows over and reads the stream's watermark, before any of its records is
    /// read.
    async fn resume(&self, source: &mut Source) -> Result<LaneConnection, FencedOff> {
        let mut backoff = BACKOFF;
        loop {
            match self.connect_and_ask(u64::MAX, false).await {
                Ok((open, _)) => {
                    let records = source.reader().expect("nothing was read yet");
                    let checks_left = match is_passed_over(records, &open.held, self.stream) {
                        true => 0,
                        false => CLEAN_BATCHES_TO_TRUST,
                    };
                    records.reconcile(self.status.totals().decided_items());
                    self.status.set(Health::Good);
                    return Ok(LaneConnection::new(open, checks_left, BACKOFF));
                }
                Err(Error::Fenced(by)) => return Err(FencedOff(by)),
                Err(error) => self.pause_after(&error, &mut backoff).await,
            }
        }
    }

    /// Gathers until the batch is full or due, or the log has ended.
    async fn gather(&self, source: &mut Source, gathered: &mut Gathered) {
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
    async fn fill(&self, source: &mut Source, gathered: &mut Gathered) {
        while !gathered.is_full(&self.limits) && self.step(source, gathered).await {}
    }

    /// Takes a record, or waits for one. `false`: the log has ended.
    async fn step(&self, source: &mut Source, gathered: &mut Gathered) -> bool {
        match source.step(gathered, &self.limits).await {
            Ok(more) => more,
            Err(error @ Error::Frame { .. }) => {
                // This program cannot read the record, and a retry cannot help. Keep it for an
                // operator. The records before it are stored.
                self.status.set(Health::Fault);
                error!(table = %self.stream.table, error = %ErrorChain(&error), "cannot go on storing events of this lane; restart with a version that can");
                true
            }
            Err(error) => {
                let mut backoff = Backoff::new(BACKOFF_MAX, BACKOFF_MAX);
                self.pause_after(&error, &mut backoff).await;
                true
            }
        }
    }

    /// Stores a batch, however long it takes. Hands it back, after a pause, if only the rows that
    /// follow can show what is wrong.
    async fn store(
        &self,
        mut batch: Batch,
        connection: &mut LaneConnection,
    ) -> Result<Option<Batch>, FencedOff> {
        let mut moved = false;
        // The result of the last attempt if the answer to its COMMIT was lost.
        let mut outcome = None;
        self.status.is_storing(true);
        loop {
            match self.attempt(&mut batch, connection, &mut outcome).await {
                Ok(settled) => {
                    let failures = std::mem::take(&mut connection.failures);
                    if failures > 0 {
                        info!(table = %self.stream.table, failures, "Postgres takes events again");
                    }
                    connection.backoff.reset();
                    if self.status.set(connection.health()) < connection.health() {
                        warn!(table = %self.stream.table, "every row that came last was set aside; see `recsys-ingest quarantine list`");
                    }
                    self.status.is_storing(false);
                    self.drain.settled(batch.bytes());
                    self.spool.ack(self.stream.number, batch.last_sequence());
                    batch.settle(settled);
                    return Ok(None);
                }
                Err(Error::Fenced(by)) => return Err(FencedOff(by)),
                // A COMMIT without an answer took effect later, or another lane took the rows over
                // again. A new connection reads the ledger, which tells.
                Err(Error::Moved) if !std::mem::replace(&mut moved, true) => connection.open = None,
                Err(error) => {
                    connection.failures = connection.failures.saturating_add(1);
                    match error.class() {
                        ErrorKind::NoPartition => self.maintainer.forget(self.stream.table),
                        // The connection works: keep it.
                        ErrorKind::Undecided => {}
                        _ => connection.let_go(&error),
                    }
                    self.pause_after(&error, &mut connection.backoff).await;
                    // Not while a COMMIT may be under way: it is for exactly this batch.
                    if error.asks_for_more_rows() && outcome.is_none() {
                        return Ok(Some(batch));
                    }
                }
            }
        }
    }

    /// Logs the error if it makes the lane's health worse, and waits.
    async fn pause_after(&self, error: &Error, backoff: &mut Backoff) {
        let table = self.stream.table;
        if let Error::Postgres(error) = error {
            self.checks.note_error(error);
        }
        let class = error.class();
        let reason = class.as_str();
        self.metrics
            .store_errors
            .get_or_create(&ByReason { table, reason })
            .inc();
        let mut pause = backoff.pause();
        match class {
            ErrorKind::Fault => {
                pause = jittered(FAULT_BACKOFF);
                if self.status.set(Health::Fault) < Health::Fault {
                    error!(%table, error = %ErrorChain(error), "cannot store events until this is mended; they are kept in the spool");
                }
            }
            ErrorKind::Undecided => {
                if self.status.set(Health::Undecided) < Health::Undecided {
                    warn!(%table, error = %ErrorChain(error), "cannot tell yet whether rows or the table are at fault; they are kept in the spool");
                }
            }
            ErrorKind::NoPartition => debug!(%table, "a partition is gone; making it again"),
            ErrorKind::Away | ErrorKind::Duplicate | ErrorKind::RejectedRow(_) => {
                if self.status.set(Health::Away) < Health::Away {
                    warn!(%table, error = %ErrorChain(error), "cannot store events now, retrying; they are kept in the spool");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }

    /// Tries once to store a batch.
    async fn attempt(
        &self,
        batch: &mut Batch,
        connection: &mut LaneConnection,
        outcome: &mut Option<BatchResult>,
    ) -> Result<BatchResult, Error> {
        let open = match connection.open.take() {
            Some(open) => connection.open.insert(open),
            None => {
                let (last, sent) = (batch.last_sequence(), outcome.is_some());
                let (open, decision) = self.connect_and_ask(last, sent).await?;
                let open = connection.open.insert(open);
                if decision == Decision::Committed
                    && let Some(settled) = outcome.take()
                {
                    self.count(batch, &settled);
                    return Ok(settled);
                }
                open
            }
        };
        let table = self.stream.table;
        let covering = self
            .maintainer
            .ensure(&mut open.session, table, batch.times());
        let Ok(refused) = tokio::time::timeout(COVER_LIMIT, covering).await else {
            return Err(Error::from(postgres::Error::TimedOut {
                doing: "make partitions",
                seconds: COVER_LIMIT.as_secs(),
            }));
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
        let probe = connection.checks_left > 0;
        let lasts = connection.failures >= FAILURES_THAT_LAST;
        let started = Instant::now();
        let plan = Plan {
            probe,
            held_back,
            stream: &self.stream,
            lasts,
            claim: Claim {
                opening: open.held.me.id,
                seen: open.seen,
            },
        };
        let client = &open.session.client;
        let (settled, totals) =
            transaction::store(client, &open.statements, batch, plan, outcome).await?;
        open.seen = totals.settled;
        self.status.settle(totals);
        self.count(batch, &settled);
        self.observe(batch, started, probe);
        connection.count(batch.len(), &settled);
        connection.checks_left = match settled.duplicates.is_empty() {
            true => connection.checks_left.saturating_sub(1),
            false => CLEAN_BATCHES_TO_TRUST,
        };
        Ok(settled)
    }

    /// Connects and decides from the ledger what to do with the batch that ends with record `last`.
    /// `sent`: a COMMIT was sent for it and its answer was lost.
    async fn connect_and_ask(
        &self,
        last: u64,
        sent: bool,
    ) -> Result<(OpenConnection, Decision), Error> {
        let session = Session::open(&self.target, None).await?;
        self.checks.note_transport(session.clear_text.as_deref());
        self.checks
            .admit(
                &session.client,
                self.stream.table,
                transaction::STATEMENT_LIMIT,
            )
            .await?;
        let client = &session.client;
        let prepared = async {
            client.batch_execute(READ_ONLY_UNLESS_BEGUN).await?;
            Statements::prepare(client, self.stream.table).await
        };
        let doing = "prepare statements";
        let statements = limited(doing, STATEMENT_LIMIT, prepared).await?;
        let mut held = self.opening.take(client, None).await?;
        loop {
            let row = self.read(client).await?;
            match decide(row.as_ref().map(|row| row.mark), held.me, last, sent) {
                decision @ (Decision::Committed | Decision::Store { .. }) => {
                    let totals = row.map(|row| row.totals).unwrap_or_default();
                    self.status.settle(totals);
                    let open = OpenConnection {
                        session,
                        statements,
                        held,
                        seen: totals.settled,
                    };
                    return Ok((open, decision));
                }
                // This ends: each take-over gives a higher epoch than the row had.
                Decision::TakeOver => held = self.opening.take(client, Some(held.me.epoch)).await?,
                Decision::Fenced => return Err(Error::Fenced(row.and_then(|row| row.holder))),
            }
        }
    }

    /// Reads the stream's ledger row.
    async fn read(&self, client: &Client) -> Result<Option<LedgerRow>, Error> {
        let reading = self.stream.read(client);
        Ok(limited("read the ledger", STATEMENT_LIMIT, reading).await?)
    }

    fn count(&self, batch: &Batch, settled: &BatchResult) {
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

    fn observe(&self, batch: &Batch, started: Instant, was_checked: bool) {
        let by_table = ByTable {
            table: self.stream.table,
        };
        if was_checked {
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

/// Skips the lane's records that the ledger shows as stored. `false`: records in the directory may
/// be stored already, by another copy of this spool.
fn is_passed_over(records: &mut Records, held: &Held, stream: Stream) -> bool {
    let Some(found) = held.found(stream.number) else {
        return false;
    };
    let trusted = records.skip_to(found.taken.settled) && found.taken.passed.is_none();
    if !trusted {
        records.number_beyond(found.watermark);
    }
    // A fork's ledger rows begin without a watermark, though its records may be stored.
    trusted && (stream.lineage.is_nil() || found.watermark > 0)
}

fn waits_for_partition(why: &str) -> RejectedRow {
    RejectedRow {
        sqlstate: PARTITION_BUDGET.to_owned(),
        message: why.to_owned(),
        ..RejectedRow::default()
    }
}
