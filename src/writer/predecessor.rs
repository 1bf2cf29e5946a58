//! Ends the session of a writer that was stopped in the middle of a transaction.
//!
//! A process that is frozen, or cut off, leaves its transaction open: Postgres waits for what it sends
//! next, and keeps its locks, on the ledger row that its successor has to take over and on the keys of
//! the rows that its successor has to store.

use std::convert::Infallible;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use tracing::{debug, warn};

use crate::accounts::ledger::{Stream, spool_lock};
use crate::postgres::connect::Target;
use crate::postgres::error::{Error, ErrorChain, limited};
use crate::postgres::session::Session;

/// A take-over changes a few rows: it should not have to wait at all.
pub(crate) const SOON: Duration = Duration::from_millis(200);

/// Most batches are stored within this time, and need no second connection.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// A writer that works sends its next message well within this time.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks in a row that have to find a session waiting for its client.
const LOOKS: usize = 3;

const LIMIT: Duration = Duration::from_secs(2);

/// The sessions of lanes of the same log that hold up `$1` and wait for their client. Each lane holds the
/// advisory lock `$2`, and no other session does.
const FROZEN: &str = "
    SELECT held.pid, held.state_change::text
      FROM unnest(pg_blocking_pids($1)) AS blocking (pid)
      JOIN pg_stat_activity AS held ON held.pid = blocking.pid
     WHERE held.wait_event_type = 'Client'
       AND EXISTS (SELECT
                     FROM pg_locks AS lane
                    WHERE lane.pid = held.pid AND lane.locktype = 'advisory' AND lane.objsubid = 1
                      AND (lane.classid::bigint << 32 | lane.objid::bigint) = $2)
     ORDER BY held.pid";

const END: &str = "
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE pid = $1 AND state_change::text = $2 AND wait_event_type = 'Client'";

/// Ends sessions that hold up the one with process `waiting`, from `after` on, each once it has waited
/// for its client for a while. Never returns: stop it when `waiting` goes on.
pub(crate) async fn end_if_frozen(
    target: &Target,
    waiting: Option<i32>,
    stream: &Stream,
    after: Duration,
) -> Infallible {
    let Some(pid) = waiting else {
        return std::future::pending().await;
    };
    let lane = spool_lock(stream.log, stream.lineage);
    loop {
        tokio::time::sleep(after).await;
        if let Err(error) = look(target, pid, lane).await {
            debug!(error = %ErrorChain(&error), "cannot see what holds up the take-over");
        }
    }
}

async fn look(target: &Target, pid: i32, lane: i64) -> Result<(), Error> {
    let session = Session::open(target, Some(LIMIT)).await?;
    let client = &session.client;
    let mut seen = Vec::new();
    let mut looks = 0;
    loop {
        let found = limited("look for frozen writers", LIMIT, frozen(client, pid, lane)).await?;
        looks = match found == seen {
            true => looks + 1,
            false => 1,
        };
        seen = found;
        if looks >= LOOKS {
            for (pid, since) in &seen {
                let parameters: [&(dyn ToSql + Sync); 2] = [pid, since];
                let ending = client.execute(END, &parameters);
                limited("end a frozen writer", LIMIT, ending).await?;
                warn!(
                    pid,
                    "ended the session of a writer that was frozen in a transaction"
                );
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn frozen(
    client: &Client,
    pid: i32,
    lane: i64,
) -> Result<Vec<(i32, String)>, tokio_postgres::Error> {
    let rows = client.query(FROZEN, &[&pid, &lane]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
