//! Compares the tables with what was posted and promised.
//!
//! Keeps one invariant: it shares no code with the service. Ids lead back to
//! slots, slots lead back to events, so that what is in memory is one byte a slot
//! and the keys of the sample.

mod columns;
mod partitions;
mod scan;
mod slots;
pub(crate) mod verdict;

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use crate::generate::event::Events;
use crate::generate::expect::Salt;
use crate::generate::plan::Plan;
use crate::generate::settings::{Settings, Table};
use crate::ledger::Ledger;
use crate::report::tally::Tally;
use slots::Slots;
use verdict::Verdict;

/// Rows that are not there yet are looked for again after this, and then less often.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(300);
const LOOK_AGAIN_LAST: Duration = Duration::from_secs(5);

/// Looks into the tables before and after a run.
pub(crate) struct Checker {
    client: Client,
    /// Moves the client's bytes, and ends with us.
    _driver: JoinSet<()>,
    /// Names of [`Settings::tenants`], resolved.
    tenants: Vec<uuid::Uuid>,
    slots: Slots,
    salt: Salt,
}

impl Checker {
    /// Connects, and notes which of the run's rows are there already.
    pub(crate) async fn before(
        database_url: &str,
        settings: &Settings,
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
        let tenants = tenants(&client, settings).await?;
        let mut this = Self {
            client,
            _driver: driver,
            tenants,
            slots: Slots::new(plan.slots()),
            salt: Salt::new(salt),
        };
        // What was there before is nobody's promise: only its presence counts.
        let mut verdict = Verdict::default();
        this.scan(settings, plan, &mut verdict).await?;
        this.slots.note_before();
        Ok(this)
    }

    /// Compares, waiting for rows that are promised and not there: as long as rows arrive or
    /// the service has some in its spool, and `settle` beyond that.
    pub(crate) async fn after(
        &mut self,
        settings: &Settings,
        plan: &Plan,
        ledger: &Ledger,
        passes: &[Tally],
        patience: Patience,
        spooled: impl AsyncFn() -> Option<u64>,
    ) -> anyhow::Result<Verdict> {
        self.slots.promise(settings, plan, ledger);
        let mut wait = Wait::new(Instant::now(), patience);
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            let mut verdict = Verdict::default();
            self.slots.forget_seen();
            // Before the scan: what is stored in between is found, and nothing that is on
            // its way is called missing.
            let in_spool = spooled().await;
            let sample = self.scan(settings, plan, &mut verdict).await?;
            self.slots.judge(settings, plan, &mut verdict);
            let goes_on = wait.goes_on(Instant::now(), verdict.found, in_spool.unwrap_or(0));
            if verdict.missing > 0 && goes_on {
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN_LAST);
                continue;
            }
            verdict.set_spooled(in_spool.unwrap_or(0));
            columns::compare(
                &self.client, settings, plan, &self.salt, &sample, &mut verdict,
            )
            .await?;
            verdict.compare_counts(settings, plan, &self.slots, passes);
            verdict.ledger(ledger);
            return Ok(verdict);
        }
    }

    async fn scan(
        &mut self,
        settings: &Settings,
        plan: &Plan,
        verdict: &mut Verdict,
    ) -> anyhow::Result<Vec<columns::Key>> {
        let mut sample = Vec::new();
        let mut owners = scan::Owners::new(self.tenants.clone(), settings.callers.len());
        for table in Table::ALL {
            let mut scan = scan::Scan {
                settings,
                plan,
                events: Events::new(settings, plan),
                table,
                slots: &mut self.slots,
                owners: &mut owners,
                sample: &mut sample,
                verdict,
            };
            scan.run(&self.client).await?;
        }
        Ok(sample)
    }
}

/// How long to wait for rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the next row, if the service says that none is spooled.
    pub(crate) settle: Duration,
    /// However many rows still arrive.
    pub(crate) at_most: Duration,
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

/// The ids of the tenants that the settings name.
async fn tenants(client: &Client, settings: &Settings) -> anyhow::Result<Vec<uuid::Uuid>> {
    let mut ids = Vec::new();
    for name in &settings.tenants {
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
