//! Computes a day, in one transaction.
//!
//! Invariant: a day counts as computed with the marks that were read before its events were. A batch
//! that commits later leaves another mark, so that its day is computed again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::{Computed, Limits, covisitation, days, popularity};
use crate::jobs::day::TenantDay;

/// First half of the advisory locks' keys: "sign" in ASCII. The second half is of tenant and day.
const LOCK_CLASS: i32 = i32::from_be_bytes(*b"sign");

/// How often to ask whether another run has finished with a day.
const LOCK_STEP: Duration = Duration::from_millis(200);

/// Longest wait for another run of the same day.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// The memory of one sort or hash table, before it goes on on disk. A day's plan has a handful of
/// them, in up to three processes.
const WORK_MEM: &str = "64MB";

/// Computes the signals of a day in one transaction.
///
/// The rows of each surface with items in the day's exposures are replaced. A surface without any is
/// left as it is: its exposures may have been removed with their partition, or its signals come
/// from elsewhere.
///
/// # Errors
/// When Postgres refuses a statement or is away, or another run has the day for an hour. Then
/// nothing is changed.
pub async fn compute(client: &mut Client, day: &TenantDay, limits: &Limits) -> Result<Computed> {
    let waiting_since = Instant::now();
    loop {
        // Each statement sees what was committed before it began, so that the events are read after
        // the marks.
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .read_only(false)
            .start()
            .await
            .context("cannot begin a transaction")?;
        if !lock(&transaction, day).await? {
            transaction.rollback().await?;
            anyhow::ensure!(
                waiting_since.elapsed() < LOCK_WAIT_MAX,
                "another run has been computing this day for an hour: look for it in pg_stat_activity"
            );
            tokio::time::sleep(LOCK_STEP).await;
            continue;
        }
        let computed = compute_in(&transaction, day, limits).await?;
        transaction
            .commit()
            .await
            .context("cannot commit the signals")?;
        return Ok(computed);
    }
}

/// Takes the day's lock until the transaction ends. `false`: another run has it.
///
/// Does not wait inside Postgres, where `CREATE INDEX CONCURRENTLY` would wait for it in turn.
async fn lock(transaction: &Transaction<'_>, day: &TenantDay) -> Result<bool> {
    let key = format!("{} {}", day.tenant, day.day);
    let row = transaction
        .query_one(
            "SELECT pg_try_advisory_xact_lock($1, hashtext($2))",
            &[&LOCK_CLASS, &key],
        )
        .await
        .context("cannot take the lock of the day")?;
    Ok(row.get(0))
}

async fn compute_in(
    transaction: &Transaction<'_>,
    day: &TenantDay,
    limits: &Limits,
) -> Result<Computed> {
    // Compiling the plan takes longer than it saves with a few thousand events, and little with
    // millions: most of the time is spent in jsonb.
    let settings = format!("SET LOCAL jit = off; SET LOCAL work_mem = '{WORK_MEM}'");
    transaction.batch_execute(&settings).await?;
    days::record(transaction, day).await?;
    let started = Instant::now();
    let (popularity, shown) = popularity::write(transaction, day, limits)
        .await
        .context("cannot write item_popularity_daily")?;
    let popularity = popularity.after(started);
    let started = Instant::now();
    let (covisitation, sessions_left_out) = covisitation::write(transaction, day, limits)
        .await
        .context("cannot write item_covisit_daily")?;
    Ok(Computed {
        shown,
        popularity,
        covisitation: covisitation.after(started),
        sessions_left_out,
    })
}
