//! Compares the tables with what was posted and promised.
//!
//! Keeps one invariant: nothing of the service that handles an event is used here,
//! only the names of tables and formats and the hash of ids. Ids lead back to
//! slots, slots lead back to events, so that four bytes a slot are in memory.

mod findings;
mod partitions;
mod scan;
mod slots;

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use crate::generate::{Plan, Salt};
use crate::report::Tally;
use crate::service::Pseudonymizer;
pub use findings::Findings;
use slots::Slots;

/// Rows that are not there yet are looked for again after this, and then less often.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(300);
const LOOK_AGAIN_LAST: Duration = Duration::from_secs(5);
/// One row in this many is compared column by column.
const SAMPLE_ONE_IN: u64 = 100;

/// Looks into the tables before and after a run.
pub struct Checker {
    client: Client,
    /// Moves the client's bytes, and ends with us.
    _driver: JoinSet<()>,
    /// The tenants that the settings name, resolved.
    tenants: Vec<uuid::Uuid>,
    slots: Slots,
    salt: Salt,
    sample_one_in: u64,
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
        let mut wait = Wait::new(Instant::now(), patience);
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            let mut findings = Findings::default();
            self.slots.forget_seen();
            // Before the scan: what is stored in between is found, and nothing that is on
            // its way is called missing.
            let in_spool = spooled().await;
            self.scan(plan, &mut findings).await?;
            self.slots.judge(plan, &mut findings);
            let goes_on = wait.goes_on(Instant::now(), findings.found, in_spool.unwrap_or(0));
            if findings.missing > 0 && goes_on {
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN_LAST);
                continue;
            }
            findings.set_spooled(in_spool.unwrap_or(0));
            findings.compare_counts(plan, &self.slots, passes);
            return Ok(findings);
        }
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

/// Decides whether rows that are missing may still come.
#[derive(Debug)]
struct Wait {
    began: Instant,
    patience: Patience,
    /// When something was last seen to move.
    moved: Instant,
    found: u64,
    spooled: u64,
}

impl Wait {
    fn new(now: Instant, patience: Patience) -> Self {
        Self {
            began: now,
            patience,
            moved: now,
            found: 0,
            spooled: 0,
        }
    }

    /// Whether to look again after a look at `now` that found this number of events.
    fn goes_on(&mut self, now: Instant, found: u64, spooled: u64) -> bool {
        if found > self.found || spooled < self.spooled {
            self.moved = now;
        }
        (self.found, self.spooled) = (found, spooled);
        let is_over = now >= self.began + self.patience.at_most;
        !is_over && (spooled > 0 || now < self.moved + self.patience.settle)
    }
}

/// The ids of tenants by their names.
async fn tenants(client: &Client, names: &[String]) -> anyhow::Result<Vec<uuid::Uuid>> {
    let mut ids = Vec::new();
    for name in names {
        let row = client
            .query_opt(
                "SELECT id FROM tenants WHERE external_id = $1 OR id::text = $1",
                &[name],
            )
            .await
            .context("cannot read the tenants: is this the service's database?")?
            .with_context(|| format!("there is no tenant {name} in the database (--tenants)"))?;
        ids.push(row.try_get(0)?);
    }
    Ok(ids)
}
