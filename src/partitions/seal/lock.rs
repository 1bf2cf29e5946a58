//! The advisory lock by which sealers take turns, step by step.

use tokio_postgres::Client;

use crate::postgres::advisory_lock::{self, Holder};
use crate::postgres::error::Error;

/// Key of the advisory lock: "ingestIX" in ASCII, so that an operator can recognise it in
/// `pg_locks`.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"ingestIX");

/// Takes the lock for this session. `false` if another session holds it.
pub(crate) async fn try_lock(client: &Client) -> Result<bool, Error> {
    let taken = advisory_lock::try_lock(client, LOCK_KEY).await;
    let backend = taken.map_err(|source| Error::Statement {
        doing: "take the lock of the sealers",
        source,
    })?;
    Ok(backend.is_some())
}

/// Releases the lock.
pub(crate) async fn unlock(client: &Client) -> Result<(), Error> {
    let released = advisory_lock::unlock(client, LOCK_KEY).await;
    released.map_err(|source| Error::Statement {
        doing: "give the lock of the sealers back",
        source,
    })
}

/// The session that holds the lock, if any.
pub async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    let holder = advisory_lock::holder(client, LOCK_KEY).await;
    holder.map_err(|source| Error::Statement {
        doing: "find out who seals",
        source,
    })
}
