//! The lock that a process holds while it migrates a database.
//!
//! Invariant: at most one process changes the schema of a database at a time. It holds a
//! session-level advisory lock, and checks in `pg_locks` that its own backend holds it: behind a
//! transaction pooler the lock would belong to a shared server connection and protect nothing.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::postgres::advisory_lock;

/// Key of the advisory lock: "ingestDB" in ASCII, so that an operator can recognise it in
/// `pg_locks`.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"ingestDB");

/// The interval at which to ask for the lock again.
const WAIT_STEP: Duration = Duration::from_millis(100);

/// Waits for the advisory lock. Returns the pid of the backend that holds it.
pub(super) async fn lock(client: &Client, wait_max: Duration) -> anyhow::Result<i32> {
    let deadline = Instant::now() + wait_max;
    loop {
        let taken = advisory_lock::try_lock(client, LOCK_KEY).await;
        if let Some(backend) = taken.context("cannot ask for the migration lock")? {
            assert_held(client, backend).await?;
            return Ok(backend);
        }
        if Instant::now() >= deadline {
            let holder = advisory_lock::holder(client, LOCK_KEY)
                .await
                .context("cannot find out who holds the migration lock")?;
            let holder = holder.map_or_else(|| "no session now".to_owned(), |one| one.to_string());
            bail!(
                "gave up after {wait_max:?} waiting for the migration lock, held by {holder}: \
                 let that instance finish migrating, or end its connection, and start again"
            );
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

/// Fails unless the current backend is `backend` and holds the lock.
async fn assert_held(client: &Client, backend: i32) -> anyhow::Result<()> {
    let row = client
        .query_one(
            "SELECT pg_backend_pid(), EXISTS (
                 SELECT FROM pg_locks
                 WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND ((classid::bigint << 32) | objid::bigint) = $1 AND objsubid = 1)",
            &[&LOCK_KEY],
        )
        .await
        .context("cannot check who holds the migration lock")?;
    let (answering, held): (i32, bool) = (row.get(0), row.get(1));
    if answering != backend || !held {
        bail!(
            "the migration lock was taken by backend {backend}, but backend {answering} answers now \
             and {}: a transaction pooler stands in between and session locks protect nothing; \
             give the migrations a direct or session-pooled connection",
            if held { "holds it" } else { "does not hold it" },
        );
    }
    Ok(())
}

/// Releases the lock. Fails if this session no longer holds it.
pub(super) async fn unlock(client: &Client, backend: i32) -> anyhow::Result<()> {
    assert_held(client, backend).await?;
    let released = advisory_lock::unlock(client, LOCK_KEY).await;
    released.context("cannot give the migration lock back")
}
