//! Ensures that the partition of each row exists before the row is copied.
//!
//! Invariant: a lane copies only rows of times that are covered as far as this service has read,
//! and partitions are created on demand only at a bounded rate. All lanes share it; the usual check
//! is one read of a snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use crate::backoff::Failing;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::metrics::{ByTable, Metrics};

use super::budget::CreationBudget;
use super::catalog::read_coverage;
use super::coverage::Coverage;
use super::create::ensure_with;
use super::error::Error;
use super::indexes::IndexProfile;
use super::range::{Interval, Range};
use crate::postgres::checks::clock::server_time;
use crate::postgres::connect::Target;
use crate::postgres::error as postgres;
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;

const SECOND_US: f64 = 1e6;

/// The interval at which partitions are created ahead of time.
const TICK: Duration = Duration::from_secs(600);

/// The pause after a failed tick.
const RETRY: Duration = Duration::from_secs(5);

/// The limit of one tick, with all that it creates. Statement timeouts run at the server, so a dead
/// connection needs this limit.
const TICK_LIMIT: Duration = Duration::from_secs(600);

/// Creating a partition is DDL, which may take long but has to end.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// While the budget is exhausted the catalog is read at most this often, for any number of batches:
/// another process or an operator may have created what is missing.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The message of rows that are quarantined while the budget is exhausted.
const BUDGET_SPENT: &str =
    "needs a new partition, and no more may be made this hour; it is stored as soon as one may";

/// How long to assume that the role still may not create partitions: only an operator changes its
/// privileges.
const DENIED_FOR: Duration = Duration::from_secs(60);

/// A range of time without a partition, for which none is created now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uncovered {
    pub(crate) range: Range,
    /// The reason, as the message in quarantine.
    pub(crate) why: &'static str,
}

/// Which partitions to create.
#[derive(Clone, Copy, Debug)]
pub struct PartitionPolicy {
    /// The range of one partition.
    pub interval: Interval,
    /// The number of partitions after the current one to create ahead of time.
    pub ahead: u32,
    /// The number of partitions per hour that may be created on demand.
    pub on_demand_per_hour: usize,
    /// Whether new partitions get all indexes or only their key.
    pub indexes: IndexProfile,
}

/// Creates partitions for the lanes, and remembers what the tables cover.
#[derive(Debug)]
pub struct PartitionMaintainer {
    policy: PartitionPolicy,
    coverage: [ArcSwap<Coverage>; Table::ALL.len()],
    budget: Mutex<CreationBudget>,
    /// When Postgres last refused to let the role create a partition.
    denied: Mutex<Option<Instant>>,
    shortage: Mutex<Shortage>,
    metrics: Arc<Metrics>,
}

impl PartitionMaintainer {
    /// A maintainer that has read nothing yet.
    pub fn new(policy: PartitionPolicy, metrics: Arc<Metrics>) -> Self {
        Self {
            budget: Mutex::new(CreationBudget::new(policy.on_demand_per_hour)),
            coverage: Default::default(),
            denied: Mutex::default(),
            shortage: Mutex::default(),
            policy,
            metrics,
        }
    }

    /// Creates the partitions that rows at `times` need. Returns the ranges that may not be created
    /// now.
    pub(crate) async fn ensure(
        &self,
        session: &mut Session,
        table: Table,
        times: impl Iterator<Item = Micros>,
    ) -> Result<Vec<Uncovered>, Error> {
        let wanted = self.missing(table, times);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        if self.shortage().holds(table, Instant::now()) {
            let why = BUDGET_SPENT;
            let refused = wanted.into_iter().map(|range| Uncovered { range, why });
            return Ok(refused.collect());
        }
        // Another process may have created them since the last read.
        self.read(session, table).await?;
        let mut refused = Vec::new();
        let mut has_made = false;
        for range in self.coverage[table as usize].load().missing(wanted) {
            if self.is_denied() {
                let why = self.only_waits(session, range).await?;
                refused.push(Uncovered { range, why });
                continue;
            }
            if !self.may_make(table, range) {
                let why = BUDGET_SPENT;
                refused.push(Uncovered { range, why });
                continue;
            }
            match self.make(session, table, range, "on demand").await {
                Ok(()) => has_made = true,
                Err(error) if error.is_denied() => {
                    self.deny();
                    warn!(%table, %range, error = %ErrorChain(&error), "may not make a partition that events need");
                    let why = self.only_waits(session, range).await.map_err(|_| error)?;
                    refused.push(Uncovered { range, why });
                }
                Err(error) => return Err(error),
            }
        }
        if has_made {
            self.read(session, table).await?;
        }
        Ok(refused)
    }

    fn is_denied(&self) -> bool {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.is_some_and(|at| at.elapsed() < DENIED_FOR)
    }

    fn deny(&self) {
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Why rows of `range` are quarantined while the role may not create partitions.
    ///
    /// # Errors
    ///
    /// When `range` should exist ahead of time: then all current rows need it, and they wait in the
    /// spool until it is created.
    async fn only_waits(&self, session: &Session, range: Range) -> Result<&'static str, Error> {
        let now = server_time(&session.client).await?;
        let policy = self.policy;
        match policy
            .interval
            .ranges_ahead(now.0, policy.ahead)
            .contains(&range)
        {
            true => Err(Error::NotAllowed { range }),
            false => Ok(
                "needs a new partition, which the service's role may not make; it is stored as soon as there is one",
            ),
        }
    }

    /// Takes one creation from the budget. Logs once when it is exhausted, and once when it no
    /// longer is.
    fn may_make(&self, table: Table, range: Range) -> bool {
        let now = Instant::now();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = budget.spend(now);
        drop(budget);
        let mut shortage = self.shortage();
        match spent {
            Ok(()) => {
                if shortage.end() {
                    info!(%table, "partitions that events need may be made again");
                }
                true
            }
            Err(exhausted) => {
                if shortage.begin(now + exhausted.retry_after.min(LOOK_AGAIN)) {
                    error!(
                        %table, %range,
                        "cannot make a partition that events need, and rows wait in quarantine until one may be made: {exhausted}"
                    );
                }
                false
            }
        }
    }

    fn shortage(&self) -> MutexGuard<'_, Shortage> {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what a table covers, after Postgres reported a missing partition.
    pub(crate) fn forget(&self, table: Table) {
        self.coverage[table as usize].store(Arc::default());
        self.shortage().forget(table);
    }

    fn missing(&self, table: Table, times: impl Iterator<Item = Micros>) -> Vec<Range> {
        let coverage = self.coverage[table as usize].load();
        let mut wanted: Vec<Range> = Vec::new();
        for at in times {
            let known = wanted.last().is_some_and(|range| range.contains(at.0));
            if !known && !coverage.covers(at.0) {
                wanted.push(self.policy.interval.range_of(at.0));
            }
        }
        wanted.sort_unstable_by_key(|range| range.from_us);
        wanted.dedup();
        wanted
    }

    async fn make(
        &self,
        session: &mut Session,
        table: Table,
        range: Range,
        why: &str,
    ) -> Result<(), Error> {
        for made in ensure_with(&mut session.client, table, range, self.policy.indexes, why)
            .await?
            .created()
        {
            info!(
                %table, partition = made.name, range = %made.range, moved_rows = made.moved_rows,
                "made a partition {why}"
            );
            self.metrics
                .partitions_created
                .get_or_create(&ByTable { table })
                .inc();
        }
        Ok(())
    }

    async fn read(&self, session: &mut Session, table: Table) -> Result<(), Error> {
        let coverage = read_coverage(&mut session.client, table).await?;
        self.coverage[table as usize].store(Arc::new(coverage));
        self.shortage().has_read(table, Instant::now());
        Ok(())
    }

    /// Creates the partitions of the next days ahead of time.
    pub async fn look_ahead(&self, session: &mut Session, now: Micros) -> Result<(), Error> {
        for table in Table::ALL {
            self.read(session, table).await?;
            let ahead = self.policy.interval.ranges_ahead(now.0, self.policy.ahead);
            for range in self.coverage[table as usize].load().missing(ahead) {
                match self.make(session, table, range, "ahead of time").await {
                    // The checks report this, with what to do.
                    Err(error) if error.is_denied() => break,
                    made => made?,
                }
            }
            self.read(session, table).await?;
            let end = self.coverage[table as usize].load().end_from(now.0);
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
        Ok(())
    }

    /// How time is cut into partitions.
    pub(crate) fn interval(&self) -> Interval {
        self.policy.interval
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
                    self.look_ahead(&mut session, now).await
                };
                match tokio::time::timeout(TICK_LIMIT, working).await {
                    Ok(done) => done,
                    Err(_) => {
                        session.give_up();
                        Err(Error::from(postgres::Error::TimedOut {
                            doing: "look after the partitions",
                            seconds: TICK_LIMIT.as_secs(),
                        }))
                    }
                }
            };
            let pause = match result.await {
                Ok(()) => {
                    failing.ends();
                    TICK
                }
                Err(error) => {
                    if failing.begins() {
                        warn!(error = %ErrorChain(&error), "cannot look after the partitions, retrying");
                    }
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// What is known while the budget is exhausted.
#[derive(Debug, Default)]
struct Shortage {
    /// While the budget is exhausted: when to try it again.
    until: Option<Instant>,
    /// When the catalog was last read, by table; `None` if never or forgotten since.
    read_at: [Option<Instant>; Table::ALL.len()],
}

impl Shortage {
    /// Whether what was missing at the last read can still be assumed missing.
    fn holds(&self, table: Table, now: Instant) -> bool {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < LOOK_AGAIN;
        self.until.is_some_and(|until| now < until)
            && self.read_at[table as usize].is_some_and(is_fresh)
    }

    /// Records that the budget is exhausted. True if it was not before.
    fn begin(&mut self, until: Instant) -> bool {
        self.until.replace(until).is_none()
    }

    /// Records that the budget is not exhausted. True if it was before.
    fn end(&mut self) -> bool {
        self.until.take().is_some()
    }

    fn has_read(&mut self, table: Table, now: Instant) {
        self.read_at[table as usize] = Some(now);
    }

    fn forget(&mut self, table: Table) {
        self.read_at[table as usize] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_budget_is_spent_the_catalog_is_read_once_in_so_long() {
        let (clicks, shows) = (Table::Interactions, Table::Exposures);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut shortage = Shortage::default();
        shortage.has_read(clicks, start);
        assert!(!shortage.holds(clicks, start), "there is no shortage");
        assert!(shortage.begin(after(10)));
        assert!(!shortage.begin(after(10)), "said once");
        assert!(shortage.holds(clicks, after(9)));
        assert!(!shortage.holds(shows, after(9)), "never read");
        assert!(!shortage.holds(clicks, after(10)));
        shortage.has_read(clicks, after(10));
        assert!(!shortage.begin(after(12)));
        assert!(shortage.holds(clicks, after(11)));
        shortage.forget(clicks);
        assert!(!shortage.holds(clicks, after(11)), "Postgres knows better");
        assert!(shortage.end());
        assert!(!shortage.end(), "said once");
    }
}
