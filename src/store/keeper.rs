//! Sees to it that every row finds its partition, before it is copied.
//!
//! Keeps one invariant: a writer copies only into times that the keeper has
//! seen covered, and new ones are made on demand at a bounded pace. Shared by
//! all writers; asking it is one read of a snapshot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use crate::event::{Micros, Table};
use crate::metrics::{ByTable, Metrics};

use super::connect::Target;
use super::error::{Chain, Trouble};
use super::partition::{
    self, Coverage, CreationBudget, IndexProfile, Interval, Range, ensure_with, read_coverage,
};
use super::quarantine::{self, admin::Selection};
use super::session::Session;

const DAY_US: f64 = 86_400e6;

/// How often the partitions of the days to come are looked after.
const TICK: Duration = Duration::from_secs(600);

/// How soon a tick that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// One look, with all that it makes. The limits of its statements are the server's,
/// and a connection that died in silence has none.
const TICK_LIMIT: Duration = Duration::from_secs(600);

/// Partitions are DDL: long, but not for ever.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How partitions are laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The time that one partition holds.
    pub interval: Interval,
    /// Partitions to have ready beyond the current one.
    pub ahead: u32,
    /// Partitions that events may bring about in an hour.
    pub on_demand_per_hour: usize,
    /// Whether new partitions get all indexes, or their key only.
    pub indexes: IndexProfile,
}

/// The partitions of both tables, as far as writers need to know.
#[derive(Debug)]
pub struct Keeper {
    layout: Layout,
    coverage: [ArcSwap<Coverage>; 2],
    budget: Mutex<CreationBudget>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// A keeper that has seen nothing yet.
    pub fn new(layout: Layout, metrics: Arc<Metrics>) -> Self {
        Self {
            budget: Mutex::new(CreationBudget::new(layout.on_demand_per_hour)),
            coverage: Default::default(),
            layout,
            metrics,
        }
    }

    /// Makes the partitions that rows at `times` need; returns the ranges that
    /// may not be made now.
    pub(super) async fn cover(
        &self,
        session: &mut Session,
        table: Table,
        times: impl Iterator<Item = Micros>,
    ) -> Result<Vec<Range>, Trouble> {
        let wanted = self.missing(table, times);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        // Someone else may have made them since we looked.
        self.read(session, table).await?;
        let mut refused = Vec::new();
        for range in self.coverage[table as usize].load().missing(wanted) {
            let spent = self
                .budget
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .spend(Instant::now());
            match spent {
                Ok(()) => self.make(session, table, range, "on demand").await?,
                Err(exhausted) => {
                    error!(%table, %range, "cannot make a partition that events need: {exhausted}");
                    refused.push(range);
                }
            }
        }
        self.read(session, table).await?;
        Ok(refused)
    }

    /// Forgets what is known of a table, because Postgres knows better.
    pub(super) fn forget(&self, table: Table) {
        self.coverage[table as usize].store(Arc::default());
    }

    fn missing(&self, table: Table, times: impl Iterator<Item = Micros>) -> Vec<Range> {
        let coverage = self.coverage[table as usize].load();
        let mut wanted: Vec<Range> = Vec::new();
        for at in times {
            let known = wanted.last().is_some_and(|range| range.contains(at.0));
            if !known && !coverage.covers(at.0) {
                wanted.push(self.layout.interval.range_of(at.0));
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
    ) -> Result<(), partition::Error> {
        for made in ensure_with(&mut session.client, table, range, self.layout.indexes, why)
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

    async fn read(&self, session: &mut Session, table: Table) -> Result<(), partition::Error> {
        let coverage = read_coverage(&mut session.client, table).await?;
        self.coverage[table as usize].store(Arc::new(coverage));
        Ok(())
    }

    /// Has the partitions of the days to come ready.
    pub async fn look_ahead(&self, session: &mut Session, now: Micros) -> Result<(), Trouble> {
        for table in Table::ALL {
            self.read(session, table).await?;
            let ahead = self.layout.interval.ranges_ahead(now.0, self.layout.ahead);
            for range in self.coverage[table as usize].load().missing(ahead) {
                self.make(session, table, range, "ahead of time").await?;
            }
            self.read(session, table).await?;
            let end = self.coverage[table as usize].load().end_from(now.0);
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge in days needs no microseconds"
            )]
            let days = end.saturating_sub(now.0) as f64 / DAY_US;
            self.metrics
                .partition_days_ahead
                .get_or_create(&ByTable { table })
                .set(days);
        }
        Ok(())
    }

    /// Stores rows that had to wait for a partition, as far as new ones may be made.
    async fn retry_waiting(&self, session: &mut Session) -> anyhow::Result<()> {
        let waiting = quarantine::admin::waiting_for_partition(&session.client).await?;
        for (table, at) in waiting {
            let refused = self.cover(session, table, std::iter::once(at)).await?;
            if !refused.is_empty() {
                continue;
            }
            let range = self.layout.interval.range_of(at.0);
            let ids = quarantine::admin::waiting_in(&session.client, table, range).await?;
            let retried = quarantine::admin::retry(
                &mut session.client,
                &Selection::Ids(ids),
                self.layout.interval,
            )
            .await?;
            info!(%table, %range, stored = retried.stored, "stored rows that had waited for their partition");
        }
        Ok(())
    }

    /// Looks ahead every so often, until dropped.
    pub async fn run(&self, target: &Target, now: impl Fn() -> Micros) {
        let mut failed = false;
        loop {
            let result = async {
                let mut session = Session::open(target, Some(STATEMENT_TIMEOUT)).await?;
                let working = async {
                    self.look_ahead(&mut session, now()).await?;
                    if let Err(error) = self.retry_waiting(&mut session).await {
                        warn!(
                            "cannot store rows that wait for a partition, trying again later: {error:#}"
                        );
                    }
                    Ok(())
                };
                match tokio::time::timeout(TICK_LIMIT, working).await {
                    Ok(done) => done,
                    Err(_) => {
                        session.give_up();
                        Err(Trouble::TimedOut {
                            doing: "look after the partitions",
                            seconds: TICK_LIMIT.as_secs(),
                        })
                    }
                }
            };
            match result.await {
                Ok(()) => failed = false,
                Err(trouble) => {
                    if !failed {
                        warn!(error = %Chain(&trouble), "cannot look after the partitions, retrying");
                    }
                    failed = true;
                }
            }
            tokio::time::sleep(if failed { RETRY } else { TICK }).await;
        }
    }
}
