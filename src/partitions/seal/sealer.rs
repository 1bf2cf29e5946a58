//! The task that seals due partitions while the service runs.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tracing::{debug, warn};

use crate::backoff::Failing;
use crate::event::table::Table;
use crate::metrics::Metrics;

use super::plan::Selection;
use super::pressure::Pressure;
use super::work::{STATEMENT_LIMIT, SealReport, seal};
use crate::partitions::error::Error;
use crate::partitions::indexes::IndexProfile;
use crate::postgres::checks::clock::server_time;
use crate::postgres::connect::Target;
use crate::postgres::error::{self as postgres, ErrorChain, limited};
use crate::postgres::session::Session;

/// The interval at which to look for due partitions. They become due once a day. A partition that
/// failed is tried again at this interval, and an abandoned build is expensive.
const TICK: Duration = Duration::from_secs(300);

/// The pause after a failure to connect or to read the catalog.
const RETRY: Duration = Duration::from_secs(15);

/// When partitions are sealed.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether hot partitions get all indexes, too.
    pub profile: IndexProfile,
    /// The grace after the end of a partition's range.
    pub after: Duration,
}

/// Seals partitions in the background.
#[derive(Debug)]
pub struct Sealer {
    policy: Policy,
    pressure: Pressure,
    metrics: Arc<Metrics>,
}

impl Sealer {
    /// A sealer that yields to the lanes of this process.
    pub fn new(policy: Policy, pressure: Pressure, metrics: Arc<Metrics>) -> Self {
        Self {
            policy,
            pressure,
            metrics,
        }
    }

    /// Seals due partitions at an interval, until dropped. Uses the server's clock, because all
    /// processes share the partitions.
    pub async fn run(&self, target: &Target) {
        let mut failing = Failing::default();
        loop {
            let pause = match self.once(target).await {
                Ok(report) => {
                    failing.ends();
                    report.log_failures();
                    if report.is_busy {
                        debug!("another process is sealing");
                    }
                    TICK
                }
                Err(error) => {
                    if failing.begins() {
                        warn!(error = %ErrorChain(&error), "cannot seal partitions, retrying");
                    }
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self, target: &Target) -> Result<SealReport, Error> {
        // No statement timeout: an index build is long. Waits for locks and for answers have limits.
        let mut session = Session::open(target, None).await?;
        // A role that owns no table cannot seal; the checks report that.
        if !owns_tables(&session.client).await? {
            return Ok(SealReport::default());
        }
        let selection = Selection::Due {
            profile: self.policy.profile,
            after: self.policy.after,
            now: server_time(&session.client).await?,
        };
        let pressure = Some(&self.pressure);
        let sealed = seal(&mut session, &selection, pressure, &self.metrics).await;
        if sealed.as_ref().is_err_and(Error::is_timeout) {
            session.give_up();
        }
        sealed
    }
}

async fn owns_tables(client: &Client) -> Result<bool, postgres::Error> {
    let sql = "SELECT coalesce(bool_or(pg_has_role(relowner, 'USAGE')), true) FROM pg_class
                WHERE oid IN (to_regclass($1), to_regclass($2))";
    let asking = async {
        let tables = Table::ALL.map(Table::as_str);
        client.query_one(sql, &[&tables[0], &tables[1]]).await
    };
    let doing = "find out who owns the event tables";
    Ok(limited(doing, STATEMENT_LIMIT, asking).await?.get(0))
}
