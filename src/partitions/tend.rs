//! The task that looks after the partitions while the service runs: those ahead of time, and the
//! rows that stand in DEFAULT partitions.
//!
//! All processes share the partitions, so it goes by the server's clock.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::budget::CreationBudget;
use super::create::ATTEMPTS;
use super::empty::{self, Plan, Progress};
use super::error::Error;
use super::maintain::PartitionMaintainer;
use super::range::Range;
use crate::backoff::Failing;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::metrics::ByTable;
use crate::postgres::checks::clock::server_time;
use crate::postgres::connect::Target;
use crate::postgres::error::{self as postgres, ErrorChain};
use crate::postgres::session::Session;

const SECOND_US: f64 = 1e6;

/// The interval at which partitions are created ahead of time.
const TICK: Duration = Duration::from_secs(600);

/// The pause after rows were moved out of a DEFAULT partition, if there may be more: the lanes need
/// the server, too.
const MOVING: Duration = Duration::from_secs(1);

/// The pause after a failed tick.
const RETRY: Duration = Duration::from_secs(5);

/// The limit of one tick, with all that it creates. Statement timeouts run at the server, so a dead
/// connection needs this limit.
const TICK_LIMIT: Duration = Duration::from_secs(600);

/// The limit of moving one range out of a DEFAULT partition. Its waits for locks end sooner; this is
/// for a connection that is dead.
const EMPTYING_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Creating a partition is DDL, which may take long but has to end.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

impl PartitionMaintainer {
    /// Creates the partitions of the next days ahead of time.
    pub async fn look_ahead(&self, session: &mut Session, now: Micros) -> Result<(), Error> {
        let mut result = Ok(());
        for table in Table::ALL {
            self.read(session, table).await?;
            let ahead = self.interval(table).ranges_ahead(now.0, self.policy.ahead);
            let layout = self.layouts[table as usize].load_full();
            match self
                .make_ahead(session, table, layout.coverage.missing(ahead))
                .await
            {
                Ok(()) => {}
                // The checks report this, with what to do.
                Err(error) if error.is_denied() => {}
                // The other table may have its locks free.
                Err(error @ (Error::Busy { .. } | Error::Leaving { .. })) => result = Err(error),
                Err(error) => return Err(error),
            }
            self.read(session, table).await?;
            let end = self.layouts[table as usize].load().coverage.end_from(now.0);
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge in seconds needs no microseconds"
            )]
            let seconds = end.saturating_sub(now.0) as f64 / SECOND_US;
            self.metrics
                .partitions_ahead_seconds
                .get_or_create(&ByTable { table })
                .set(seconds);
        }
        result
    }

    async fn make_ahead(
        &self,
        session: &mut Session,
        table: Table,
        missing: Vec<Range>,
    ) -> Result<(), Error> {
        let why = "ahead of time";
        if missing.is_empty() || self.make(session, table, &missing, why, ATTEMPTS).await? {
            return Ok(());
        }
        // The DEFAULT partition holds many rows of one of them. The others need not wait for it.
        for range in missing {
            self.make(session, table, &[range], why, ATTEMPTS).await?;
        }
        Ok(())
    }

    /// Counts a partition that rows of a DEFAULT partition go into against the limit per hour.
    fn may_empty(&self) -> bool {
        self.locked_emptying().spend(Instant::now()).is_ok()
    }

    fn locked_emptying(&self) -> MutexGuard<'_, CreationBudget> {
        self.emptying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves rows out of the DEFAULT partitions, one range of each. Returns whether there may be
    /// more.
    async fn empty_defaults(&self, session: &mut Session, now: Micros) -> Result<bool, Error> {
        let mut has_moved = false;
        for table in Table::ALL {
            if !self.layouts[table as usize].load().has_default || !self.may_empty() {
                continue;
            }
            let plan = Plan {
                interval: self.interval(table),
                ahead: self.policy.ahead,
                indexes: self.policy.indexes,
                now,
            };
            match empty::step(&mut session.client, table, plan).await {
                Ok(Progress::Created(created)) => {
                    self.report(table, &created, "from the default partition");
                    has_moved = true;
                    self.set_aside.notify_one();
                    continue;
                }
                Ok(Progress::Nothing) => {}
                // The checks report this, with what to do.
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(error),
            }
            self.locked_emptying().refund();
        }
        Ok(has_moved)
    }

    /// Runs a tick at an interval, until dropped. Uses the server's clock, because all processes
    /// share the partitions.
    pub async fn run(&self, target: &Target) {
        let mut failing = Failing::default();
        loop {
            let result = async {
                let mut session = Session::open(target, Some(STATEMENT_TIMEOUT)).await?;
                let working = async {
                    let now = server_time(&session.client).await?;
                    self.look_ahead(&mut session, now).await?;
                    Ok::<_, Error>(now)
                };
                let looked = within(TICK_LIMIT, "look after the partitions", working).await;
                let done = match looked {
                    Ok(now) => {
                        let emptying = self.empty_defaults(&mut session, now);
                        within(EMPTYING_LIMIT, "empty the default partitions", emptying).await
                    }
                    Err(error) => Err(error),
                };
                if done.as_ref().is_err_and(Error::is_timeout) {
                    session.give_up();
                }
                done
            };
            let pause = match result.await {
                Ok(has_moved) => {
                    failing.ends();
                    if has_moved { MOVING } else { TICK }
                }
                Err(error) => {
                    if failing.begins() {
                        warn!(error = %ErrorChain(&error), "cannot look after the partitions, retrying");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.left_in_default.notified() => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

async fn within<T>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let seconds = limit.as_secs();
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(postgres::Error::TimedOut { doing, seconds }.into()))
}
