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
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, IsolationLevel, Row};
use uuid::Uuid;

use super::last_use;
use super::role::{Role, Roles};
use super::snapshot::{KeyRow, Snapshot, Tenant, TenantStatus};
use crate::accounts::board::Board;
use crate::backoff::{Backoff, Failing};
use crate::event::time::Micros;
use crate::postgres::connect::Target;
use crate::postgres::session::Session;

/// The minimum time between two refreshes. Any client can send an unknown key, and must not be able
/// to make the service read the tables in a loop.
const REFRESH_GAP: Duration = Duration::from_secs(1);

/// Reading a hundred thousand keys takes well under a second.
const REFRESH_LIMIT: Duration = Duration::from_secs(30);

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
    /// Notifies the writer of the key cache file: a refresh is complete.
    was_read: Notify,
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
            was_read: Notify::new(),
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

    /// Reads all tables in one snapshot and puts the result in force.
    ///
    /// # Errors
    ///
    /// When the database refuses or is unreachable; the old snapshot then stays.
    pub async fn refresh(&self, client: &mut Client) -> Result<Changed> {
        let mut snapshot = read(client).await?;
        let mut copied = self.copied();
        let changed = Changed {
            anything: *self.shared.snapshot.load_full() != snapshot,
            tenants: snapshot.tenants(),
            keys: snapshot.keys(),
            skipped_keys: snapshot.skipped_keys(),
        };
        if changed.anything {
            snapshot.keep_last_uses(&self.snapshot());
            self.shared.snapshot.store(Arc::new(snapshot));
        }
        let read_ms = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.read_ms.store(read_ms.max(1), Ordering::Release);
        if copied.take().is_some() {
            tracing::info!("tenants and API keys are those of the database again, not of the copy");
        }
        drop(copied);
        self.shared.was_read.notify_one();
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
        let mut last_uses = last_use::Writer::default();
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
            sleep(REFRESH_GAP).await;
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = sleep(every.saturating_sub(REFRESH_GAP)) => {}
                () = session.over() => bail!("the connection to PostgreSQL broke"),
            }
        }
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

/// All tenants, with the settings of those that have any.
const TENANTS: &str = "
    SELECT id, external_id, status::text, settings::text
      FROM tenants LEFT JOIN ingest_tenant_settings ON tenant_id = id";

/// All keys of both tables, those that may do less last: of two with one hash, the last one counts.
const KEYS: &str = "
    SELECT id, tenant_id, key_hash, roles, expires_at, revoked_at IS NOT NULL, settings::text,
           false AS is_publish
      FROM tenant_api_keys LEFT JOIN ingest_key_settings ON key_id = id
    UNION ALL
    SELECT id, tenant_id, key_hash, '{publish}', expires_at, revoked_at IS NOT NULL, settings::text,
           true
      FROM ingest_publish_keys LEFT JOIN ingest_key_settings ON key_id = id
    ORDER BY is_publish";

/// Reads all tables in one snapshot: a key must not be seen without its tenant.
async fn read(client: &mut Client) -> Result<Snapshot> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .context("cannot begin to read tenants and API keys")?;
    let tenants = transaction
        .query(TENANTS, &[])
        .await
        .context("cannot read the tables tenants and ingest_tenant_settings")?;
    let keys = transaction
        .query(KEYS, &[])
        .await
        .context("cannot read the tables of API keys and their settings")?;
    transaction
        .commit()
        .await
        .context("cannot finish reading tenants and API keys")?;
    let tenants = tenants.iter().map(tenant).collect::<Result<Vec<_>>>();
    let mut snapshot = Snapshot::new(tenants.context("cannot make sense of the table tenants")?);
    for row in &keys {
        add_key(&mut snapshot, row).context("cannot make sense of the tables of API keys")?;
    }
    Ok(snapshot)
}

fn tenant(row: &Row) -> Result<Tenant> {
    let external_id: String = row.try_get(1)?;
    let settings: Option<&str> = row.try_get(3)?;
    let settings = settings.map(serde_json::from_str).transpose();
    Ok(Tenant {
        id: row.try_get(0)?,
        status: TenantStatus::from_name(row.try_get(2)?),
        settings: settings.unwrap_or_else(|error| {
            tracing::warn!(
                tenant = external_id,
                %error,
                "the tenant's row of ingest_tenant_settings cannot be read, and is left out; write it with recsys-ingest tenants set"
            );
            None
        }).unwrap_or_default(),
        external_id,
    })
}

fn add_key(snapshot: &mut Snapshot, row: &Row) -> Result<()> {
    let id: Uuid = row.try_get(0)?;
    let settings: Option<&str> = row.try_get(6)?;
    let settings = match settings.map(serde_json::from_str).transpose() {
        Ok(settings) => settings.map(Arc::new),
        Err(error) => {
            tracing::warn!(
                key = %id,
                %error,
                "the key's row of ingest_key_settings cannot be read, so the key is left out; write it with recsys-ingest keys grant"
            );
            snapshot.skip_key();
            return Ok(());
        }
    };
    let roles: Vec<Option<&str>> = row.try_get(3)?;
    let is_publish: bool = row.try_get(7)?;
    let names = roles.iter().copied().flatten();
    // A key of the suite's table opens other routes of the suite, so it is never one for browsers.
    let roles = Roles::from_names(names).iter();
    let roles = roles.filter(|&role| is_publish || role != Role::Publish);
    snapshot.add_key(&KeyRow {
        id,
        tenant_id: row.try_get(1)?,
        key_hash: row.try_get(2)?,
        roles: roles.collect(),
        expires_at_us: row.try_get::<_, Option<Micros>>(4)?.map(|at| at.0),
        revoked: row.try_get(5)?,
        settings,
    });
    Ok(())
}
