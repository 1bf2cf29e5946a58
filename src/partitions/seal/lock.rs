//! The lock that lets one sealer of a database run at a time, step by step.
//!
//! Invariant: no session waits inside Postgres for it. A session that waits for an advisory lock
//! holds a snapshot, and `CREATE INDEX CONCURRENTLY` waits for all snapshots: the two would
//! deadlock.

use std::fmt;

use tokio_postgres::Client;

use crate::postgres::error::Error;

/// Key of the advisory lock: "ingestIX" in ASCII, so that an operator can recognise it in
/// `pg_locks`.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"ingestIX");

/// The session that holds the lock.
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

/// Takes the lock for this session. `false` if another session holds it.
pub(crate) async fn try_lock(client: &Client) -> Result<bool, Error> {
    let row = client
        .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK_KEY])
        .await
        .map_err(|source| Error::Statement {
            doing: "take the lock of the sealers",
            source,
        })?;
    Ok(row.get(0))
}

/// Releases the lock.
pub(crate) async fn unlock(client: &Client) -> Result<(), Error> {
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&LOCK_KEY])
        .await
        .map_err(|source| Error::Statement {
            doing: "give the lock of the sealers back",
            source,
        })?;
    Ok(())
}

/// The session that holds the lock, if any.
pub async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    let row = client
        .query_opt(
            "SELECT l.pid, coalesce(nullif(a.application_name, ''), 'unnamed')
             FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 AND l.objsubid = 1
             LIMIT 1",
            &[&LOCK_KEY],
        )
        .await
        .map_err(|source| Error::Statement {
            doing: "find out who seals",
            source,
        })?;
    Ok(row.map(|row| Holder {
        pid: row.get(0),
        name: row.get(1),
    }))
}
