//! How a lane stores one batch: the attempts, the pauses between them, and what is counted.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::connection::{CLEAN_BATCHES_TO_TRUST, LaneConnection};
use super::{FencedOff, Writer};
use crate::accounts::status::Health;
use crate::backoff::{Backoff, jittered};
use crate::metrics::{ByReason, ByTable, EventOutcome};
use crate::partitions::maintain::Uncovered;
use crate::postgres::error::{self as postgres, ErrorChain};
use crate::writer::batch::{Batch, BatchResult, RowCounts};
use crate::writer::decision::Decision;
use crate::writer::error::{Error, ErrorKind, RejectedRow};
use crate::writer::ledger::Claim;
use crate::writer::predecessor::{SLOW, end_if_frozen};
use crate::writer::transaction::{self, Plan};

/// Creating a partition may move rows from a DEFAULT partition into it.
const COVER_LIMIT: Duration = Duration::from_secs(600);

/// An operator needs longer than a second.
const FAULT_BACKOFF: Duration = Duration::from_secs(5);

/// A batch with this many failed attempts, within about a second, goes to the checked path even if
/// its error usually passes by itself: one of its rows may cause it.
const FAILURES_THAT_LAST: u32 = 4;

impl Writer {
    /// Stores a batch, however long it takes. Hands it back, after a pause, if only the rows that
    /// follow can show what is wrong.
    pub(super) async fn store(
        &self,
        mut batch: Batch,
        connection: &mut LaneConnection,
    ) -> Result<Option<Batch>, FencedOff> {
        self.check_that_nothing_is_left_out(&batch);
        let mut moved = false;
        // The result of the last attempt if the answer to its COMMIT was lost.
        let mut unanswered = None;
        self.status.is_storing(true);
        self.status.holds(batch.received_at());
        loop {
            match self.attempt(&mut batch, connection, &mut unanswered).await {
                Ok(result) => {
                    let failures = std::mem::take(&mut connection.failures);
                    if failures > 0 {
                        info!(failures, "Postgres takes events again");
                    }
                    connection.backoff.reset();
                    if self.status.set(connection.health()) < connection.health() {
                        warn!(
                            "every row that came last was set aside; see `recsys-ingest quarantine list`"
                        );
                    }
                    self.status.has_stored();
                    self.drain.acked(batch.bytes());
                    self.log.ack(self.stream.number, batch.last_sequence());
                    batch.answer(result);
                    return Ok(None);
                }
                Err(Error::Fenced(by)) => return Err(FencedOff(by)),
                // A COMMIT without an answer took effect later, or another lane took the rows over
                // again. A new connection reads the ledger, which tells.
                Err(Error::Moved) if !std::mem::replace(&mut moved, true) => connection.open = None,
                Err(error) => {
                    connection.failures = connection.failures.saturating_add(1);
                    match error.class() {
                        // The connection works: keep it.
                        ErrorKind::Undecided => {}
                        _ if error.may_lack_a_partition() => {
                            self.maintainer.forget(self.stream.table);
                        }
                        _ => connection.let_go(&error),
                    }
                    self.pause_after(&error, &mut connection.backoff).await;
                    // Not while a COMMIT may be under way: it is for exactly this batch.
                    if error.asks_for_more_rows() && unanswered.is_none() {
                        return Ok(Some(batch));
                    }
                }
            }
        }
    }

    /// Logs the error if it makes the lane's health worse, and waits.
    pub(super) async fn pause_after(&self, error: &Error, backoff: &mut Backoff) {
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
                    error!(error = %ErrorChain(error), "cannot store events until this is mended; they are kept");
                }
            }
            ErrorKind::Undecided => {
                if self.status.set(Health::Undecided) < Health::Undecided {
                    warn!(error = %ErrorChain(error), "cannot tell yet whether rows or the table are at fault; they are kept");
                }
            }
            ErrorKind::NoPartition => debug!("a partition is gone; making it again"),
            ErrorKind::Away | ErrorKind::Duplicate | ErrorKind::RejectedRow(_) => {
                if self.status.set(Health::Away) < Health::Away {
                    warn!(error = %ErrorChain(error), "cannot store events now, retrying; they are kept");
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
        unanswered: &mut Option<BatchResult>,
    ) -> Result<BatchResult, Error> {
        let open = match connection.open.take() {
            Some(open) => connection.open.insert(open),
            None => {
                let (last, sent) = (batch.last_sequence(), unanswered.is_some());
                let (open, decision) = self.connect_and_ask(last, sent).await?;
                let open = connection.open.insert(open);
                if decision == Decision::Committed
                    && let Some(result) = unanswered.take()
                {
                    self.count(&result);
                    return Ok(result);
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
        let erased = match open.erased.is_empty() {
            true => Vec::new(),
            false => batch.erased(&open.erased),
        };
        // No row is looked at unless a range was refused.
        let rows = if refused.is_empty() { 0 } else { batch.len() };
        let held_back = (0..rows)
            .filter(|at| erased.binary_search(at).is_err())
            .filter_map(|at| {
                let occurred = batch.key(at).occurred_at.0;
                let mut ranges = refused.iter();
                let refused = ranges.find(|refused| refused.range.contains(occurred))?;
                Some((at, without_partition(refused)))
            })
            .collect();
        let checks_duplicates = connection.checks_left > 0;
        let lasts = connection.failures >= FAILURES_THAT_LAST;
        let started = Instant::now();
        let plan = Plan {
            checks_duplicates,
            held_back,
            erased,
            stream: &self.stream,
            lasts,
            claim: Claim {
                opening: open.held.me.id,
                seen: open.seen,
                erasures: open.erasures,
            },
        };
        let client = &open.session.client;
        let storing = transaction::store(client, &open.statements, batch, plan, unanswered);
        let (result, totals) = match self.log.is_shared() {
            false => storing.await?,
            // The rows may be in a transaction of a predecessor that is frozen.
            true => tokio::select! {
                biased;
                stored = storing => stored?,
                never = end_if_frozen(&self.target, open.session.pid(), &self.stream, SLOW) => match never {},
            },
        };
        open.seen = totals.watermark;
        self.status.update(totals);
        self.count(&result);
        self.observe(batch, started, checks_duplicates);
        connection.count(&result);
        connection.checks_left = match result.duplicates.is_empty() {
            true => connection.checks_left.saturating_sub(1),
            false => CLEAN_BATCHES_TO_TRUST,
        };
        Ok(result)
    }

    /// Panics unless the batch has every record that its ledger entry acknowledges: all that the
    /// log has delivered up to its last one.
    fn check_that_nothing_is_left_out(&self, batch: &Batch) {
        let delivered = self
            .log
            .delivered(self.stream.number, batch.last_sequence());
        let records = batch.record_count();
        if records != delivered {
            error!(
                records,
                delivered,
                last = batch.last_sequence(),
                "a batch does not hold the records that come before its end"
            );
        }
        assert!(
            records == delivered,
            "a batch would acknowledge records that are not in it"
        );
    }

    fn count(&self, result: &BatchResult) {
        let table = self.stream.table;
        let RowCounts {
            stored,
            duplicates,
            quarantined,
        } = result.counts();
        self.metrics.count(table, EventOutcome::Stored, stored);
        self.metrics
            .count(table, EventOutcome::Duplicate, duplicates);
        self.metrics
            .count(table, EventOutcome::Quarantined, quarantined);
        let erased = result.erased.len();
        if erased > 0 {
            info!(erased, "left out rows of users who were erased");
        }
        if quarantined > 0 {
            warn!(
                quarantined,
                "rows were set aside; see `recsys-ingest quarantine list`"
            );
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

fn without_partition(refused: &Uncovered) -> RejectedRow {
    RejectedRow {
        sqlstate: refused.code.to_owned(),
        message: refused.why.to_owned(),
        ..RejectedRow::default()
    }
}
