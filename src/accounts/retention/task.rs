//! The task that removes what is old while the service runs.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::policy::Policy;
use super::run::{Report, retain};
use crate::backoff::Failing;
use crate::metrics::{ByTable, Metrics};
use crate::partitions::error::Error;
use crate::postgres::checks::clock::server_time;
use crate::postgres::connect::Target;
use crate::postgres::error::{self as postgres, ErrorChain};
use crate::postgres::session::Session;

/// How often to look. Partitions become due once a day.
const TICK: Duration = Duration::from_secs(600);

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// The limit of one run, for a connection that is dead: waits for locks end sooner.
const RUN_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Looks every so often, until dropped.
pub(crate) async fn run(target: &Target, policy: &Policy, metrics: &Arc<Metrics>) {
    let mut failing = Failing::default();
    loop {
        let pause = match once(target, policy).await {
            Ok(report) => {
                failing_or_not(&mut failing, &report);
                count(&report, metrics);
                if report.failed.is_empty() {
                    TICK
                } else {
                    RETRY
                }
            }
            Err(error) => {
                if failing.begins() {
                    warn!(error = %ErrorChain(&error), "cannot remove what is older than it is kept, trying again later");
                }
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn once(target: &Target, policy: &Policy) -> Result<Report, Error> {
    // No statement timeout: a large partition takes a while to count. Waits for locks have limits.
    let mut session = Session::open(target, None).await?;
    let working = async {
        let now = server_time(&session.client).await?;
        retain(&mut session.client, policy, now).await
    };
    match tokio::time::timeout(RUN_LIMIT, working).await {
        Ok(done) => done,
        Err(_) => {
            session.give_up();
            let doing = "remove what is older than it is kept";
            let seconds = RUN_LIMIT.as_secs();
            Err(postgres::Error::TimedOut { doing, seconds }.into())
        }
    }
}

/// Logs what could not be removed: once, until a run removes all.
fn failing_or_not(failing: &mut Failing, report: &Report) {
    if report.is_busy {
        debug!("another process removes what is old");
        return;
    }
    if report.failed.is_empty() && report.not_owned.is_empty() {
        failing.ends();
        return;
    }
    if !failing.begins() {
        return;
    }
    for (name, error) in &report.failed {
        warn!(
            partition = name,
            error = %ErrorChain(error),
            "cannot remove a partition that is older than what is kept, trying again later; if it waits for a lock, look in pg_stat_activity for old transactions"
        );
    }
    for table in &report.not_owned {
        warn!(%table, "cannot remove old partitions, as another role owns them: run `recsys-ingest partitions retain` as that role, from cron for example");
    }
}

fn count(report: &Report, metrics: &Metrics) {
    for removed in &report.removed {
        let label = ByTable {
            table: removed.table,
        };
        metrics.partitions_removed.get_or_create(&label).inc();
    }
    let Report {
        default_rows,
        quarantined,
        spools,
        log_entries,
        ..
    } = report;
    if *default_rows > 0 || *quarantined > 0 || *spools > 0 || *log_entries > 0 {
        info!(
            default_rows,
            quarantined, spools, log_entries, "removed what is older than it is kept"
        );
    }
}
