//! Item signals of a day: what was shown most often, and what was shown together.
//!
//! They are computed in Postgres and put into the suite's tables. Readers see a day's signals as they
//! were or as they are now, never half of them. Postgres spills what exceeds a session's `work_mem`
//! to disk, so that memory is bounded whatever the day holds.
//!
//! Invariant: a day counts as computed with the marks that were read before its events were. A batch
//! that commits later leaves another mark, so that its day is computed again.

mod covisitation;
pub mod days;
mod popularity;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::day::TenantDay;

/// First half of the advisory locks' keys: "sign" in ASCII. The second half is of tenant and day.
const LOCK_CLASS: i32 = i32::from_be_bytes(*b"sign");

/// How often to ask whether another run has finished with a day.
const LOCK_STEP: Duration = Duration::from_millis(200);

/// Longest wait for another run of the same day.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// The memory of one sort or hash table, before it goes on on disk. A day's plan has a handful of
/// them, in up to three processes.
const WORK_MEM: &str = "64MB";

/// How much is kept of a day, for each surface. The defaults are the suite's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most popular items that are kept.
    pub items_max: u32,
    /// The neighbors that are kept of an item.
    pub neighbors_max: u32,
    /// The sessions that must have seen two items for them to be neighbors.
    pub sessions_min: u32,
    /// A session with more items than this says nothing of which items go together, and costs their
    /// square: it is left out of co-visitation.
    pub session_items_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            items_max: 1000,
            neighbors_max: 50,
            sessions_min: 2,
            session_items_max: 200,
        }
    }
}

/// The rows of one of the suite's tables for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The rows that the day has now.
    pub rows: u64,
    /// Rows that were inserted, updated or deleted.
    pub changed: u64,
    /// How long that took.
    pub took: Duration,
}

/// The result of computing a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computed {
    /// Items in the lists of the day, each as often as it was shown.
    pub shown: u64,
    /// The rows in `item_popularity_daily`.
    pub popularity: Written,
    /// The rows in `item_covisit_daily`.
    pub covisitation: Written,
    /// Sessions with more than `session_items_max` items.
    pub sessions_left_out: u64,
}

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

/// How many rows a table has for the day, and how many were changed.
#[derive(Clone, Copy, Debug)]
struct Counted {
    rows: u64,
    changed: u64,
}

impl Counted {
    fn after(self, started: Instant) -> Written {
        let Self { rows, changed } = self;
        Written {
            rows,
            changed,
            took: started.elapsed(),
        }
    }
}

/// The text without white space around it, as the suite trims ids: SQL's own trimming knows only the
/// space.
fn trimmed(text: &str) -> String {
    // What Unicode calls white space.
    format!(
        "btrim({text}, E' \\t\\n\\x0b\\f\\r\\u0085\\u00a0\\u1680\\u2000\\u2001\\u2002\\u2003\\u2004\\u2005\\u2006\\u2007\\u2008\\u2009\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000')"
    )
}

/// The name of a surface in the suite's tables.
fn namespace() -> String {
    format!("coalesce(nullif({}, ''), 'default')", trimmed("e.surface"))
}

/// The items of the exposures `e`, as `listed (item)`. A response of another form has none.
const LISTED: &str = "jsonb_array_elements(
    CASE jsonb_typeof(e.response -> 'items') WHEN 'array' THEN e.response -> 'items' END
) AS listed (item)";
