//! Session-level advisory locks, by which processes on one database take turns.
//!
//! Invariant: no session waits for one inside Postgres. A waiting session holds a snapshot, and
//! `CREATE INDEX CONCURRENTLY` waits for all of those.

use std::fmt;

use tokio_postgres::{Client, Error};

/// The session that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its backend's process id.
    pub pid: i32,
    /// Its application name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {} ({})", self.pid, self.name)
    }
}

/// Takes the lock for this session. Returns the pid of its backend; `None` if another session
/// holds the lock.
pub(crate) async fn try_lock(client: &Client, key: i64) -> Result<Option<i32>, Error> {
    let row = client
        .query_one("SELECT pg_try_advisory_lock($1), pg_backend_pid()", &[&key])
        .await?;
    Ok(row.get::<_, bool>(0).then(|| row.get(1)))
}

/// Releases the lock.
pub(crate) async fn unlock(client: &Client, key: i64) -> Result<(), Error> {
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&key])
        .await?;
    Ok(())
}

/// The session that holds the lock, if any.
pub(crate) async fn holder(client: &Client, key: i64) -> Result<Option<Holder>, Error> {
    let row = client
        .query_opt(
            "SELECT l.pid, coalesce(nullif(a.application_name, ''), 'unnamed')
             FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 AND l.objsubid = 1
             LIMIT 1",
            &[&key],
        )
        .await?;
    Ok(row.map(|row| Holder {
        pid: row.get(0),
        name: row.get(1),
    }))
}
