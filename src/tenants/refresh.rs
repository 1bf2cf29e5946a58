//! Keeps the snapshot in force up to date.
//!
//! [`TenantCache::run`] reads the tables at an interval, or early when woken, and reconnects after
//! a lost connection. If a refresh fails, the last snapshot stays in force, and its age says how
//! stale it is. Until the first refresh the key cache file of an earlier run may be used, see
//! `cache_file`; after it, never again.
//!
//! Every wait has a limit. The caller runs the loop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_postgres::Client;

use super::last_use::writer::Writer;
use super::lookup::{Asked, Lookups, Wanted};
use super::rows;
use super::snapshot::Snapshot;
use crate::accounts::board::Board;
use crate::backoff::{Backoff, Failing};
use crate::postgres::connect::Target;
use crate::postgres::session::Session;

/// The minimum time between two refreshes. Any client can send an unknown key, and must not be able
/// to make the service read the tables in a loop.
const REFRESH_GAP: Duration = Duration::from_secs(1);

/// Reading a hundred thousand keys takes well under a second.
const REFRESH_LIMIT: Duration = Duration::from_secs(30);

/// Longest wait for a refresh that was asked for: it begins within [`REFRESH_GAP`].
const EARLY_REFRESH_WAIT: Duration = Duration::from_secs(3);

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// The tenants and keys in force: a handle, cheap to clone and to read.
#[derive(Clone, Debug)]
pub struct TenantCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    /// When this cache was created; `read_ms` counts from here.
    started: Instant,
    /// End of the last complete refresh, in ms after `started` and at least 1; 0 means never.
    read_ms: AtomicU64,
    /// When the key cache file in force was last confirmed, in µs since 1970; `None` if it is not
    /// in force. Every change of the snapshot's source holds this lock.
    copied: Mutex<Option<i64>>,
    wake: Notify,
    /// Unknown keys and tenants that are looked up one by one.
    lookups: Lookups,
    /// Notifies the writer of the key cache file: a refresh is complete.
    was_read: Notify,
    /// Refreshes that have begun; each is numbered by this count.
    begun: AtomicU64,
    /// The number of the last refresh that is complete.
    complete: watch::Sender<u64>,
}

/// The source of the snapshot in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// None: the snapshot is empty.
    Unread,
    /// The key cache file of an earlier run.
    Copied {
        /// When the database last confirmed it, in µs since 1970.
        confirmed_at_us: i64,
    },
    /// The database.
    Read {
        /// Time since the last complete refresh.
        age: Duration,
    },
}

/// The result of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whether anything differs from the previous snapshot.
    pub anything: bool,
    /// The number of tenants.
    pub tenants: usize,
    /// The number of keys.
    pub keys: usize,
    /// Keys left out because their hash is not 64 hex digits, their tenant is missing or their
    /// settings cannot be read.
    pub skipped_keys: usize,
}

impl Default for TenantCache {
    fn default() -> Self {
        Self::new()
    }
}

impl TenantCache {
    /// A cache without tenants or keys; [`Self::age`] is `None`.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            started: Instant::now(),
            read_ms: AtomicU64::new(0),
            copied: Mutex::new(None),
            wake: Notify::new(),
            lookups: Lookups::new(),
            was_read: Notify::new(),
            begun: AtomicU64::new(0),
            complete: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The snapshot in force. Take it once per request, so that all lookups agree.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Time since the database was last read completely; `None` if it never was.
    ///
    /// Without a reading, or with a very old one, an unknown key proves nothing about the caller:
    /// that is an error of the service (503), not of the caller (401).
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let read_ms = self.shared.read_ms.load(Ordering::Acquire);
        (read_ms > 0).then(|| {
            self.shared
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(read_ms))
        })
    }

    /// The source of the snapshot in force.
    #[must_use]
    pub fn standing(&self) -> KeySource {
        let copied = self.copied();
        match (self.age(), *copied) {
            (Some(age), _) => KeySource::Read { age },
            (None, Some(confirmed_at_us)) => KeySource::Copied { confirmed_at_us },
            (None, None) => KeySource::Unread,
        }
    }

    fn copied(&self) -> MutexGuard<'_, Option<i64>> {
        let copied = &self.shared.copied;
        copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the key cache file in force, unless the database was read. Returns whether it did.
    pub(crate) fn stand_in(&self, snapshot: Snapshot, confirmed_at_us: i64) -> bool {
        let mut copied = self.copied();
        if self.age().is_some() {
            return false;
        }
        self.shared.snapshot.store(Arc::new(snapshot));
        *copied = Some(confirmed_at_us);
        true
    }

    /// Takes the key cache file out of force. Returns whether it was in force.
    pub(crate) fn dismiss(&self) -> bool {
        let mut copied = self.copied();
        let dismissed = copied.take().is_some();
        if dismissed {
            self.shared.snapshot.store(Arc::default());
        }
        dismissed
    }

    /// Waits for the next refresh. Returns at once if one completed since the last call.
    pub(crate) async fn was_read(&self) {
        self.shared.was_read.notified().await;
    }

    /// Asks the running loop for an early refresh. Cheap, and safe to call for every unknown key:
    /// the tables are read at most once a second.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Looks an unknown key or tenant up alone, and puts it in force if there is one. Returns whether
    /// there is, as far as is known within seconds.
    ///
    /// At most twenty a second reach the database. For others all tables are read early, and what they
    /// say counts: a flood of keys that do not exist must not hide one that is new.
    pub async fn find(&self, wanted: Wanted) -> bool {
        if let Some(found) = self.shared.lookups.find(wanted.clone()).await {
            return found;
        }
        let mark = self.mark();
        self.wake();
        if !self.shared.lookups.is_open() {
            return false;
        }
        let mut complete = self.shared.complete.subscribe();
        let refresh = complete.wait_for(|number| *number > mark);
        drop(timeout(EARLY_REFRESH_WAIT, refresh).await);
        let snapshot = self.snapshot();
        match &wanted {
            Wanted::Key(hash) => snapshot.has_key(*hash),
            Wanted::Tenant(named) => snapshot.tenant(named).is_some(),
        }
    }

    /// A mark of this moment, for [`Self::has_read_since`].
    #[must_use]
    pub(crate) fn mark(&self) -> u64 {
        self.shared.begun.load(Ordering::Acquire)
    }

    /// Whether all tables were read since the mark, in one reading that began after it.
    #[must_use]
    pub(crate) fn has_read_since(&self, mark: u64) -> bool {
        *self.shared.complete.borrow() > mark
    }

    /// Look-ups that were made since the start.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        self.shared.lookups.made()
    }

    /// Reads all tables in one snapshot, if they changed, and puts the result in force.
    ///
    /// # Errors
    ///
    /// When the database refuses or is unreachable; the old snapshot then stays.
    pub async fn refresh(&self, client: &mut Client) -> Result<Changed> {
        let number = self.shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let older = self.snapshot();
        let read = rows::read(client, older.fingerprint()).await?;
        let mut copied = self.copied();
        let mut anything = false;
        if let Some(mut snapshot) = read {
            anything = *older != snapshot;
            snapshot.keep_last_uses(&older);
            self.shared.snapshot.store(Arc::new(snapshot));
        }
        drop(older);
        let now = self.snapshot();
        let changed = Changed {
            anything,
            tenants: now.tenants(),
            keys: now.keys(),
            skipped_keys: now.skipped_keys(),
        };
        let read_ms = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.read_ms.store(read_ms.max(1), Ordering::Release);
        if copied.take().is_some() {
            tracing::info!("tenants and API keys are those of the database again, not of the copy");
        }
        drop(copied);
        self.shared.was_read.notify_one();
        self.shared.complete.send_replace(number);
        Ok(changed)
    }

    /// Refreshes about every `every` and on [`Self::wake`], until `stop` turns true or its sender
    /// is dropped. Retries the database for ever.
    ///
    /// Each refresh also compares the clocks, and repeats the checks that have findings.
    pub async fn run(
        self,
        target: Target,
        every: Duration,
        checks: Arc<Board>,
        mut stop: watch::Receiver<bool>,
    ) {
        tokio::select! {
            // A dropped sender means the same as a stop.
            _ = stop.wait_for(|stopped| *stopped) => {}
            () = self.refresh_for_ever(&target, every.max(REFRESH_GAP), &checks) => {}
        }
    }

    async fn refresh_for_ever(&self, target: &Target, every: Duration, checks: &Board) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut failing = Failing::default();
        loop {
            let reads_before = self.shared.read_ms.load(Ordering::Acquire);
            let error = match self
                .refresh_while_connected(target, every, checks, &mut failing)
                .await
            {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if self.shared.read_ms.load(Ordering::Acquire) != reads_before {
                backoff.reset();
            }
            // Logged once per outage: the age is a metric, and every attempt would log the same.
            if failing.begins() {
                tracing::warn!(
                    error = format!("{error:#}"),
                    tenants = self.snapshot().tenants(),
                    "cannot refresh tenants and API keys; the last ones read stay in force"
                );
            }
            sleep(backoff.pause()).await;
        }
    }

    /// Returns only the error that ended the connection.
    async fn refresh_while_connected(
        &self,
        target: &Target,
        every: Duration,
        checks: &Board,
        failing: &mut Failing,
    ) -> Result<std::convert::Infallible> {
        let mut session = Session::open(target, Some(REFRESH_LIMIT)).await?;
        let mut last_uses = Writer::default();
        let mut asked = self.shared.lookups.open().await;
        loop {
            let Ok(changed) = timeout(REFRESH_LIMIT, self.refresh(&mut session.client)).await
            else {
                session.give_up();
                bail!("no answer within {} s", REFRESH_LIMIT.as_secs());
            };
            self.report(changed?, failing);
            checks.compare_clocks(&session.client).await?;
            checks.look_again(&session.client).await?;
            let snapshot = self.snapshot();
            let writing = last_uses.write(&session.client, &snapshot);
            let Ok(written) = timeout(REFRESH_LIMIT, writing).await else {
                session.give_up();
                bail!("no answer within {} s", REFRESH_LIMIT.as_secs());
            };
            written.context("cannot note when API keys were last used")?;
            let read_at = tokio::time::Instant::now();
            let mut may_wake = false;
            loop {
                tokio::select! {
                    () = sleep_until(read_at + REFRESH_GAP), if !may_wake => may_wake = true,
                    () = self.shared.wake.notified(), if may_wake => break,
                    () = sleep_until(read_at + every) => break,
                    wanted = asked.next() => {
                        let looking = self.look_up(&session.client, wanted, &asked);
                        let Ok(looked) = timeout(REFRESH_LIMIT, looking).await else {
                            session.give_up();
                            bail!("no answer within {} s", REFRESH_LIMIT.as_secs());
                        };
                        looked?;
                    }
                    () = session.over() => bail!("the connection to PostgreSQL broke"),
                }
            }
        }
    }

    /// Looks one key or tenant up. A found one is in force before the answer is given.
    async fn look_up(&self, client: &Client, wanted: Wanted, asked: &Asked<'_>) -> Result<()> {
        let found = match &wanted {
            Wanted::Key(hash) => rows::find_key(client, *hash).await?,
            Wanted::Tenant(named) => rows::find_tenant(client, named).await?,
        };
        let mut is_there = false;
        if !found.is_empty() {
            let mut snapshot = Snapshot::clone(&self.snapshot());
            found.add_to(&mut snapshot)?;
            // A key that cannot be used is not there.
            is_there = match &wanted {
                Wanted::Key(hash) => snapshot.has_key(*hash),
                Wanted::Tenant(named) => snapshot.tenant(named).is_some(),
            };
            let copied = self.copied();
            self.shared.snapshot.store(Arc::new(snapshot));
            drop(copied);
        }
        asked.answer(&wanted, is_there);
        Ok(())
    }

    fn report(&self, changed: Changed, failing: &mut Failing) {
        if failing.ends() {
            tracing::info!("tenants and API keys are being refreshed again");
        }
        if !changed.anything {
            return;
        }
        let Changed {
            tenants,
            keys,
            skipped_keys,
            ..
        } = changed;
        if skipped_keys > 0 {
            tracing::warn!(
                tenants,
                keys,
                skipped_keys,
                "tenants and API keys changed; keys whose key_hash is not 64 hex digits, or whose settings cannot be read, are left out"
            );
        } else {
            tracing::info!(tenants, keys, "tenants and API keys changed");
        }
    }
}
