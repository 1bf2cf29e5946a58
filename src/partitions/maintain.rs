//! Ensures that the partition of each row exists before the row is copied.
//!
//! Invariant: a lane copies only rows of times that are covered as far as this service has read,
//! and partitions are created on demand only at a bounded rate. All lanes share it; the usual check
//! is one read of a snapshot.
//!
//! No lane waits for another session's transaction. Rows of a range whose partition cannot be
//! created now go into the DEFAULT partition where there is one, and into quarantine otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::event::result::{PARTITION_BUDGET, TOO_OLD, TOO_OLD_MESSAGE};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::metrics::{ByTable, Metrics};

use super::budget::CreationBudget;
use super::coverage::Coverage;
use super::create::{Created, Ensured, FEW_ATTEMPTS, ensure_all};
use super::deferred::{Deferred, Place};
use super::error::Error;
use super::indexes::IndexProfile;
use super::layout::{Layout, read_layout};
use super::range::{Interval, Range};
use super::shortage::{LOOK_AGAIN, Shortage};
use crate::postgres::checks::clock::server_time;
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;

/// How long rows of a range go into the DEFAULT partition before its own is thought of again.
const LEFT_FOR: Duration = Duration::from_secs(60);

/// How long a range is left alone after its locks were not to be had.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// The message of rows that are quarantined while the locks of a partition are not to be had.
const BUSY: &str = "needs a new partition, which cannot be made while another transaction holds the table; it is stored as soon as there is one";

/// The message of rows that are quarantined while the budget is exhausted.
const BUDGET_SPENT: &str =
    "needs a new partition, and no more may be made this hour; it is stored as soon as one may";

/// How long to assume that the role still may not create partitions: only an operator changes its
/// privileges.
const DENIED_FOR: Duration = Duration::from_secs(60);

/// A range of time without a partition, for which none is created now.
#[derive(Clone, Copy, Debug)]
pub struct Uncovered {
    /// The range.
    pub range: Range,
    /// This service's code for the rows in quarantine.
    pub code: &'static str,
    /// The reason, as the message in quarantine.
    pub why: &'static str,
}

/// Which partitions to create.
#[derive(Clone, Copy, Debug)]
pub struct PartitionPolicy {
    /// The range of one partition. `None`: as the table's partitions go on by now.
    pub interval: Option<Interval>,
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
    pub(super) policy: PartitionPolicy,
    pub(super) layouts: [ArcSwap<Layout>; Table::ALL.len()],
    budget: Mutex<CreationBudget>,
    /// For partitions that rows of a DEFAULT partition are moved into.
    pub(super) emptying: Mutex<CreationBudget>,
    deferred: Deferred,
    /// Notified when rows were set aside that may be stored within seconds.
    pub(super) set_aside: Notify,
    /// Notified when rows go into a DEFAULT partition, from which they have to be moved.
    pub(super) left_in_default: Notify,
    /// When Postgres last refused to let the role create a partition.
    denied: Mutex<Option<Instant>>,
    shortage: Mutex<Shortage>,
    pub(super) metrics: Arc<Metrics>,
}

impl PartitionMaintainer {
    /// A maintainer that has read nothing yet.
    pub fn new(policy: PartitionPolicy, metrics: Arc<Metrics>) -> Self {
        Self {
            budget: Mutex::new(CreationBudget::new(policy.on_demand_per_hour)),
            emptying: Mutex::new(CreationBudget::new(policy.on_demand_per_hour)),
            layouts: Default::default(),
            deferred: Deferred::default(),
            set_aside: Notify::new(),
            left_in_default: Notify::new(),
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
        self.ensure_by(session, table, times, Instant::now).await
    }

    /// As `ensure`, by a clock of the caller's: partitions are counted by the hour.
    pub async fn ensure_by(
        &self,
        session: &mut Session,
        table: Table,
        times: impl Iterator<Item = Micros>,
        now: impl Fn() -> Instant,
    ) -> Result<Vec<Uncovered>, Error> {
        let wanted = self.missing(table, times);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut refused = Vec::new();
        let wanted = self.not_too_old(table, wanted, &mut refused);
        let wanted = self.not_deferred(table, wanted, now(), &mut refused);
        if wanted.is_empty() {
            return Ok(refused);
        }
        if self.shortage().holds(table, now()) {
            self.refuse(table, wanted, BUDGET_SPENT, &mut refused);
            return Ok(refused);
        }
        // Another process may have created them since the last read, in another interval, or
        // removed them for good.
        self.read_at(session, table, now()).await?;
        let days = self.not_too_old(table, wanted, &mut refused);
        let layout = self.layouts[table as usize].load_full();
        let wanted = days
            .iter()
            .map(|day| self.interval(table).range_of(day.from_us));
        let wanted = layout.coverage.missing(wanted);
        let wanted = self.not_deferred(table, wanted, now(), &mut refused);
        // Partitions of other sizes may cover parts of a range. Each gap between them is a partition,
        // and counts as one; those that no row needs are made ahead of time, if at all.
        let is_needed = |gap: &Range| days.iter().any(|day| day.overlaps(*gap));
        let gaps = wanted.into_iter().flat_map(|range| {
            let gaps = layout.coverage.gaps(range).into_iter().filter(is_needed);
            gaps.map(move |gap| (range, gap))
        });
        let mut has_made = false;
        for (range, gap) in gaps {
            if self.is_denied() {
                let why = self.only_waits(session, table, range).await?;
                self.refuse(table, [gap], why, &mut refused);
                continue;
            }
            if !self.may_make(table, gap, now()) {
                self.refuse(table, [gap], BUDGET_SPENT, &mut refused);
                continue;
            }
            match self
                .make(session, table, &[gap], "on demand", FEW_ATTEMPTS)
                .await
            {
                Ok(true) => has_made = true,
                Ok(false) => {
                    self.locked_budget().refund();
                    self.defer(table, range, Place::Default, now(), LEFT_FOR);
                }
                Err(error) if error.is_denied() => {
                    self.deny();
                    warn!(%table, range = %gap, error = %ErrorChain(&error), "may not make a partition that events need");
                    let waits = self.only_waits(session, table, range).await;
                    let why = waits.map_err(|_| error)?;
                    self.refuse(table, [gap], why, &mut refused);
                }
                Err(error @ (Error::Busy { .. } | Error::Leaving { .. })) => {
                    self.locked_budget().refund();
                    let is_leaving = matches!(error, Error::Leaving { .. });
                    let has_default = self.layouts[table as usize].load().has_default;
                    if has_default && !is_leaving {
                        self.defer(table, range, Place::Default, now(), BUSY_FOR);
                        continue;
                    }
                    // All current rows need it: they wait in the spool.
                    if !is_leaving && self.is_due(session, table, range).await? {
                        return Err(error);
                    }
                    warn!(%table, range = %gap, error = %ErrorChain(&error), "cannot make a partition that events need now; they wait in quarantine");
                    self.defer(table, range, Place::Aside, now(), BUSY_FOR);
                    self.refuse(table, [gap], BUSY, &mut refused);
                }
                Err(error) => return Err(error),
            }
        }
        if has_made {
            self.read_at(session, table, now()).await?;
        }
        Ok(refused)
    }

    /// Waits until rows were set aside that may be stored within seconds.
    pub(crate) async fn set_aside(&self) {
        self.set_aside.notified().await;
    }

    /// Leaves out the ranges whose rows have a place for now, and refuses those whose place is in
    /// quarantine.
    fn not_deferred(
        &self,
        table: Table,
        wanted: Vec<Range>,
        now: Instant,
        refused: &mut Vec<Uncovered>,
    ) -> Vec<Range> {
        let interval = self.interval(table);
        let mut left = Vec::new();
        for range in wanted {
            // What is wanted may be a day of it.
            let whole = interval.range_of(range.from_us);
            match self.deferred.place_of(table, whole, now) {
                None => left.push(range),
                Some(Place::Default) => {}
                Some(Place::Aside) => self.refuse(table, [whole], BUSY, refused),
            }
        }
        left
    }

    /// Refuses the ranges that are older than what is kept, and leaves them out.
    fn not_too_old(
        &self,
        table: Table,
        wanted: Vec<Range>,
        refused: &mut Vec<Uncovered>,
    ) -> Vec<Range> {
        let layout = self.layouts[table as usize].load();
        let is_old = |range: &Range| range.to_us <= layout.kept_from_us;
        let (old, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_old);
        let gaps = old
            .into_iter()
            .flat_map(|range| layout.coverage.gaps(range));
        refused.extend(gaps.map(|range| Uncovered {
            range,
            code: TOO_OLD,
            why: TOO_OLD_MESSAGE,
        }));
        wanted
    }

    fn defer(&self, table: Table, range: Range, place: Place, now: Instant, length: Duration) {
        self.deferred.put(table, range, place, now, length);
        match place {
            Place::Default => self.left_in_default.notify_one(),
            Place::Aside => self.set_aside.notify_one(),
        }
    }

    /// Refuses rows in the parts of ranges that have no partition.
    fn refuse(
        &self,
        table: Table,
        ranges: impl IntoIterator<Item = Range>,
        why: &'static str,
        refused: &mut Vec<Uncovered>,
    ) {
        let layout = self.layouts[table as usize].load();
        for range in ranges {
            let gaps = layout.coverage.gaps(range).into_iter();
            refused.extend(gaps.map(|range| Uncovered {
                range,
                code: PARTITION_BUDGET,
                why,
            }));
        }
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
    async fn only_waits(
        &self,
        session: &Session,
        table: Table,
        range: Range,
    ) -> Result<&'static str, Error> {
        match self.is_due(session, table, range).await? {
            true => Err(Error::NotAllowed { range }),
            false => Ok(
                "needs a new partition, which the service's role may not make; it is stored as soon as there is one",
            ),
        }
    }

    /// Whether a range should exist ahead of time.
    async fn is_due(&self, session: &Session, table: Table, range: Range) -> Result<bool, Error> {
        let now = server_time(&session.client).await?;
        let interval = self.interval(table);
        Ok(interval
            .ranges_ahead(now.0, self.policy.ahead)
            .contains(&range))
    }

    fn locked_budget(&self) -> MutexGuard<'_, CreationBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one creation from the budget. Logs once when it is exhausted, and once when it no
    /// longer is.
    fn may_make(&self, table: Table, range: Range, now: Instant) -> bool {
        let spent = self.locked_budget().spend(now);
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
        let layout = self.layouts[table as usize].load();
        let coverage = Coverage::default();
        let layout = Layout {
            coverage,
            ..Layout::clone(&layout)
        };
        self.layouts[table as usize].store(Arc::new(layout));
        self.deferred.forget(table);
        self.shortage().forget(table);
    }

    /// The days of `times` without a partition.
    fn missing(&self, table: Table, times: impl Iterator<Item = Micros>) -> Vec<Range> {
        let layout = self.layouts[table as usize].load();
        let mut wanted: Vec<Range> = Vec::new();
        for at in times {
            let known = wanted.last().is_some_and(|range| range.contains(at.0));
            if !known && !layout.coverage.covers(at.0) {
                wanted.push(Interval::Day.range_of(at.0));
            }
        }
        wanted.sort_unstable_by_key(|range| range.from_us);
        wanted.dedup();
        wanted
    }

    /// Creates partitions. `false`: none, the rows stay in the DEFAULT partition for now.
    pub(super) async fn make(
        &self,
        session: &mut Session,
        table: Table,
        ranges: &[Range],
        why: &str,
        attempts: u32,
    ) -> Result<bool, Error> {
        let (client, profile) = (&mut session.client, self.policy.indexes);
        let ensured = ensure_all(client, table, ranges, profile, why, attempts).await?;
        self.report(table, ensured.created(), why);
        Ok(ensured != Ensured::LeftInDefault)
    }

    pub(super) fn report(&self, table: Table, created: &[Created], why: &str) {
        for made in created {
            info!(
                %table, partition = made.name, range = %made.range, moved_rows = made.moved_rows,
                "made a partition {why}"
            );
            self.metrics
                .partitions_created
                .get_or_create(&ByTable { table })
                .inc();
        }
    }

    pub(super) async fn read(&self, session: &mut Session, table: Table) -> Result<(), Error> {
        self.read_at(session, table, Instant::now()).await
    }

    async fn read_at(
        &self,
        session: &mut Session,
        table: Table,
        now: Instant,
    ) -> Result<(), Error> {
        let layout = read_layout(&mut session.client, table).await?;
        self.layouts[table as usize].store(Arc::new(layout));
        self.shortage().has_read(table, now);
        Ok(())
    }

    /// How time is cut into partitions of a table.
    pub(crate) fn interval(&self, table: Table) -> Interval {
        let found = self.layouts[table as usize].load().interval;
        self.policy.interval.or(found).unwrap_or_default()
    }
}
