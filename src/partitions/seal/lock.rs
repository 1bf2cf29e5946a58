//! The advisory lock by which sealers take turns, step by step.

use std::time::Duration;

use tokio_postgres::Client;

use crate::postgres::advisory_lock::{self, Holder};
use crate::postgres::error::{Error, limited};

/// Key of the advisory lock: "ingestIX" in ASCII, so that an operator can recognise it in
/// `pg_locks`.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"ingestIX");

/// None of these statements waits for another session.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes the lock for this session. `false` if another session holds it.
pub(crate) async fn try_lock(client: &Client) -> Result<bool, Error> {
    let taking = advisory_lock::try_lock(client, LOCK_KEY);
    let backend = limited("take the lock of the sealers", LIMIT, taking).await?;
    Ok(backend.is_some())
}

/// Releases the lock.
pub(crate) async fn unlock(client: &Client) -> Result<(), Error> {
    let releasing = advisory_lock::unlock(client, LOCK_KEY);
    limited("give the lock of the sealers back", LIMIT, releasing).await
}

/// The session that holds the lock, if any.
pub async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    let asking = advisory_lock::holder(client, LOCK_KEY);
    limited("find out who seals", LIMIT, asking).await
}
