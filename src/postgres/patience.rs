//! Locks that other statements would queue behind: each is waited for briefly, and then again.
//!
//! Invariant: no statement of another session waits longer than [`LOCK_WAIT_MS`] behind a lock
//! request from here, and none longer than that behind the locks that [`begin_locked`] collects.
//! A request that waits when a long transaction ends gets its lock before the next transaction
//! does, so that attempts succeed even where one long reader follows the other.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::backoff::jittered;

/// The longest wait for one lock, in milliseconds.
pub(crate) const LOCK_WAIT_MS: u32 = 80;

/// The pause between two attempts. Statements that had queued behind the first get their turn.
const PAUSE: Duration = Duration::from_millis(200);

/// Attempts for as long as a limit allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    deadline: Instant,
}

impl Patience {
    /// Attempts until `limit` from now.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            deadline: Instant::now() + limit,
        }
    }

    /// Pauses before another attempt. `false`, at once: the limit is reached.
    pub(crate) async fn pause(&self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        tokio::time::sleep(jittered(PAUSE)).await;
        true
    }
}

/// Whether a lock was not to be had in time: another session holds it.
pub(crate) fn is_contention(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED
    })
}

/// Begins a transaction that holds the locks of a `LOCK TABLE` statement, all of them within
/// [`LOCK_WAIT_MS`]. After an error there is no transaction.
///
/// # Errors
///
/// [`is_contention`] if a lock was not to be had.
pub(crate) async fn begin_locked(client: &Client, lock: &str) -> Result<(), Error> {
    client.batch_execute("BEGIN").await?;
    let locking = async {
        client
            .batch_execute(&format!("SET LOCAL lock_timeout = {LOCK_WAIT_MS}"))
            .await?;
        // A table has many partitions, and the limit above is for each of them.
        let limit = format!("SET LOCAL statement_timeout = {}", LOCK_WAIT_MS + 10);
        client.batch_execute(&limit).await?;
        client.batch_execute(lock).await?;
        client
            .batch_execute("SET LOCAL statement_timeout = 0")
            .await
    };
    match locking.await {
        Ok(()) => Ok(()),
        Err(error) => {
            drop(client.batch_execute("ROLLBACK").await);
            Err(error)
        }
    }
}

/// Whether [`begin_locked`] may succeed at another time.
pub(crate) fn is_lock_missed(error: &Error) -> bool {
    is_contention(error) || error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Runs statements under the locks of a `LOCK TABLE` statement, in one transaction. Attempts it
/// until `patience` ends.
///
/// # Errors
///
/// The last error of Postgres.
pub(crate) async fn run_locked(
    client: &Client,
    lock: &str,
    sql: &str,
    patience: Patience,
) -> Result<(), Error> {
    loop {
        match begin_locked(client, lock).await {
            Ok(()) => break,
            Err(error) if is_lock_missed(&error) => {
                if !patience.pause().await {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let done = client.batch_execute(sql).await;
    let end = match done {
        Ok(()) => "COMMIT",
        Err(_) => "ROLLBACK",
    };
    let ended = client.batch_execute(end).await;
    done.and(ended)
}
