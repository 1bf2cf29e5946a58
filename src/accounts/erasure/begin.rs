//! How an erasure begins: from its COMMIT on, no writer stores rows of the user from before its time.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use crate::event::time::Micros;
use crate::postgres::checks::clock::server_time;
use crate::postgres::patience::{Patience, begin_locked, is_lock_missed};

/// How long to try for the lock on the ledger. Batches hold it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for the batches that are being entered, and holds up others until the COMMIT.
const LOCK: &str = "LOCK TABLE ingest_ledger IN SHARE ROW EXCLUSIVE MODE";

/// A user of a tenant.
#[derive(Clone, Debug)]
pub struct Subject {
    pub tenant: Uuid,
    /// The hash of the user's id.
    pub key: Vec<u8>,
    /// Events from before this time are meant.
    pub before: Micros,
}

/// The time of an erasure: now, or an earlier one, by the server's clock.
///
/// # Errors
///
/// When the time is in the future: events of the user up to then would not be stored. Also when the
/// connection is lost.
pub async fn until(client: &Client, wanted: Option<Micros>) -> Result<Micros> {
    let now = server_time(client).await?;
    match wanted {
        Some(before) if before > now => bail!(
            "--before {before} is yet to come, as it is {now} by the clock of the database: all that the \
             user does until then would be left out; name a time that has passed, or none, which is now"
        ),
        Some(before) => Ok(before),
        None => Ok(now),
    }
}

/// The id of a tenant, by external id or UUID. Where the one's external id is the other's UUID, the
/// external id counts, as everywhere.
///
/// # Errors
///
/// When there is none.
pub async fn tenant_named(client: &Client, name: &str) -> Result<Uuid> {
    let row = client
        .query_opt(
            "SELECT id FROM tenants WHERE external_id = $1 OR id::text = lower($1)
              ORDER BY external_id = $1 DESC LIMIT 1",
            &[&name],
        )
        .await
        .context("cannot read the tenants")?;
    let row = row.with_context(|| {
        format!("there is no tenant {name}; `recsys-ingest tenants list` shows which there are")
    })?;
    Ok(row.get(0))
}

/// Begins an erasure.
///
/// # Errors
///
/// When Postgres refuses, or the lock is not to be had. Nothing was done then.
pub async fn begin(client: &mut Client, subject: &Subject, keeps_rows: bool) -> Result<()> {
    let patience = Patience::new(PATIENCE);
    loop {
        match begin_locked(client, LOCK).await {
            Ok(()) => break,
            Err(error) => {
                if !is_lock_missed(&error) || !patience.pause().await {
                    return Err(error).context("cannot lock ingest_ledger to erase a user");
                }
            }
        }
    }
    let client = &*client;
    let done = enter(client, subject, keeps_rows).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await;
    done?;
    ended.context("cannot commit the erasure")
}

async fn enter(client: &Client, subject: &Subject, keeps_rows: bool) -> Result<()> {
    let Subject {
        tenant,
        key,
        before,
    } = subject;
    // The time only grows, but for one that was yet to come when it was written: that one was never
    // meant, and counts as the time of its erasure.
    client
        .execute(
            "INSERT INTO ingest_erased_subjects AS erased (tenant_id, user_key, before)
             VALUES ($1, $2, $3)
                 ON CONFLICT (tenant_id, user_key) DO UPDATE
                SET before = greatest(least(erased.before, erased.erased_at), excluded.before),
                    erased_at = now()",
            &[tenant, key, before],
        )
        .await
        .context("cannot write to ingest_erased_subjects")?;
    client
        .execute("UPDATE ingest_ledger SET erasures = erasures + 1", &[])
        .await
        .context("cannot tell the writers, through ingest_ledger")?;
    let detail = serde_json::json!({"before": before.to_string(), "keep_rows": keeps_rows});
    note(client, subject, "user.erase", &detail).await
}

/// Writes a row about the user into `audit_log`.
///
/// # Errors
///
/// When the role may not.
pub async fn note(
    client: &impl GenericClient,
    subject: &Subject,
    action: &str,
    detail: &serde_json::Value,
) -> Result<()> {
    client
        .execute(
            "INSERT INTO audit_log
                 (tenant_id, actor_sub, actor_type, action, entity_type, entity_id, after_state)
             VALUES ($1, coalesce(nullif(current_setting('recsys_ingest.actor', true), ''), session_user),
                     'cli', $2, 'user', encode($3, 'hex'), $4)",
            &[&subject.tenant, &action, &subject.key, detail],
        )
        .await
        .context("it cannot be noted in audit_log; the role needs INSERT on it and USAGE on audit_log_id_seq")?;
    Ok(())
}
