//! Compares the tables with what was posted and promised.
//!
//! Keeps one invariant: nothing of the service that handles an event is used here,
//! only the names of tables and formats and the hash of ids. Ids lead back to
//! slots, slots lead back to events, so that four bytes a slot are in memory.

mod findings;
mod scan;
mod slots;

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::generate::{Plan, Salt};
use crate::report::Tally;
use crate::service::{Pseudonymizer, TABLES};
pub use findings::Findings;
use scan::window;
use slots::Slots;

/// Rows that are not there yet are looked for again after this, and then less often.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(300);
const LOOK_AGAIN_LAST: Duration = Duration::from_secs(5);
/// One row in this many is compared column by column.
const SAMPLE_ONE_IN: u64 = 100;

/// Rows that a statement of the clean-up removes.
const REMOVED_AT_ONCE: usize = 10_000;

/// Looks into the tables before and after a run.
pub struct Checker {
    client: Client,
    /// Moves the client's bytes, and ends with us.
    _driver: JoinSet<()>,
    /// The tenants that the settings name, resolved.
    tenants: Vec<Uuid>,
    slots: Slots,
    salt: Salt,
    sample_one_in: u64,
    /// Ids of the run's rows that the last look found, by table.
    found: [Vec<Uuid>; TABLES.len()],
}

impl Checker {
    /// Connects, and notes which of the run's rows are there already.
    pub async fn before(
        database_url: &str,
        plan: &Plan,
        salt: Option<&str>,
    ) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(database_url, NoTls)
            .await
            .context("cannot connect to the database (--database-url)")?;
        // Its errors come back from the query that meets them.
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        client.batch_execute("SET TimeZone = 'UTC'").await?;
        let tenants = tenants(&client, &plan.settings.tenants).await?;
        let mut this = Self {
            client,
            _driver: driver,
            tenants,
            slots: Slots::new(plan.slots()),
            salt: salt.map(|salt| Pseudonymizer::new(salt.as_bytes())),
            sample_one_in: SAMPLE_ONE_IN,
            found: Default::default(),
        };
        // No answer promised what was there before: only its presence counts.
        this.scan(plan, &mut Findings::default()).await?;
        this.slots.mark_before();
        Ok(this)
    }

    /// Compares, waiting for rows that are promised and not there: as long as rows arrive or
    /// the service has some in its spool, and `settle` beyond that.
    pub async fn after(
        &mut self,
        plan: &Plan,
        passes: &[Tally],
        patience: Patience,
        spooled: impl AsyncFn() -> Option<u64>,
    ) -> anyhow::Result<Findings> {
        self.slots.promise(plan, passes);
        let began = Instant::now();
        let (mut moved, mut last) = (began, (0, 0));
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            let mut findings = Findings::default();
            self.slots.forget_seen();
            // Before the scan: what is stored in between is found, and nothing that is on
            // its way is called missing.
            let in_spool = spooled().await.unwrap_or(0);
            self.scan(plan, &mut findings).await?;
            self.slots.judge(plan, &mut findings);
            if findings.found > last.0 || in_spool < last.1 {
                moved = Instant::now();
            }
            last = (findings.found, in_spool);
            let goes_on = patience.lasts(began.elapsed(), moved.elapsed(), in_spool);
            if findings.missing > 0 && goes_on {
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN_LAST);
                continue;
            }
            findings.set_spooled(in_spool);
            findings.compare_counts(plan, &self.slots, passes);
            return Ok(findings);
        }
    }

    /// Removes the rows that the last look found, and books them as removed by an operator, so that
    /// the service's `verify` balances; returns how many.
    pub async fn cleanup(&mut self, plan: &Plan) -> anyhow::Result<i64> {
        let (from, to) = window(plan);
        let reason = format!("loadtest --cleanup of a run with seed {}", plan.seed);
        let mut removed = 0;
        for (table, ids) in TABLES.into_iter().zip(&self.found) {
            let delete = format!(
                "WITH gone AS (DELETE FROM {table} WHERE occurred_at >= '{from}' AND occurred_at < '{to}'
                                  AND event_id = ANY ($1) RETURNING event_id)
                 INSERT INTO ingest_removed_rows (table_name, row_count, reason)
                 SELECT '{table}', count(*), $2 FROM gone HAVING count(*) > 0 RETURNING row_count"
            );
            for ids in ids.chunks(REMOVED_AT_ONCE) {
                let deleted = self.client.query_opt(&delete, &[&ids, &reason]).await;
                let deleted =
                    deleted.with_context(|| format!("cannot remove rows from {table}"))?;
                removed += deleted.map_or(0, |booked| booked.get(0));
            }
        }
        Ok(removed)
    }
}

/// How long to wait for rows.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the next row, if the service says that none is spooled.
    pub settle: Duration,
    /// For all of them, as long as rows still arrive.
    pub at_most: Duration,
}

impl Patience {
    /// Whether to look again after so long, for so long of which nothing has moved.
    fn lasts(&self, waited: Duration, idle: Duration, spooled: u64) -> bool {
        waited < self.at_most && (spooled > 0 || idle < self.settle)
    }
}

/// The ids of tenants by their names.
async fn tenants(client: &Client, names: &[String]) -> anyhow::Result<Vec<Uuid>> {
    let query = "SELECT id FROM tenants WHERE external_id = $1 OR id::text = $1";
    let mut ids = Vec::new();
    for name in names {
        let row = client.query_opt(query, &[name]).await;
        let row = row.context("cannot read the tenants: is this the service's database?")?;
        let none = || format!("there is no tenant {name} in the database (--tenants)");
        ids.push(row.with_context(none)?.try_get(0)?);
    }
    Ok(ids)
}
