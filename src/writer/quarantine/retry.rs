//! Stores rows that had to wait for a partition.

use std::time::Duration;

use tracing::{info, warn};

use crate::accounts::quarantine::{self, Selection};
use crate::backoff::Failing;
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::connect::Target;
use crate::postgres::session::Session;

/// How often to look. More partitions may be made as the hour of the limit passes.
const EVERY: Duration = Duration::from_secs(600);

/// How soon to look after rows were set aside that wait for another session's lock.
const SOON: Duration = Duration::from_secs(6);

/// How soon to try again after an error.
const RETRY: Duration = Duration::from_secs(15);

/// The limit on one look, which may create partitions.
const LIMIT: Duration = Duration::from_secs(600);

/// Longest statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Looks every so often, until dropped.
pub(crate) async fn run(target: &Target, maintainer: &PartitionMaintainer) {
    let mut failing = Failing::default();
    loop {
        let pause = match retry_waiting(target, maintainer).await {
            Ok(()) => {
                failing.ends();
                EVERY
            }
            Err(error) => {
                if failing.begins() {
                    warn!(
                        "cannot store rows that wait for a partition, trying again later: {error:#}"
                    );
                }
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = maintainer.set_aside() => tokio::time::sleep(SOON).await,
        }
    }
}

/// Stores the rows whose partitions exist, or may be made now.
async fn retry_waiting(target: &Target, maintainer: &PartitionMaintainer) -> anyhow::Result<()> {
    let mut session = Session::open(target, Some(STATEMENT_TIMEOUT)).await?;
    match tokio::time::timeout(LIMIT, retry_through(&mut session, maintainer)).await {
        Ok(retried) => retried,
        Err(_) => {
            session.give_up();
            anyhow::bail!("gave up after {} s without an answer", LIMIT.as_secs())
        }
    }
}

async fn retry_through(
    session: &mut Session,
    maintainer: &PartitionMaintainer,
) -> anyhow::Result<()> {
    let waiting = quarantine::waiting_for_partition(&session.client).await?;
    for (table, at) in waiting {
        let refused = maintainer
            .ensure(session, table, std::iter::once(at))
            .await?;
        if !refused.is_empty() {
            continue;
        }
        let interval = maintainer.interval(table);
        let range = interval.range_of(at.0);
        let ids = quarantine::waiting_in(&session.client, table, range).await?;
        let client = &mut session.client;
        let retried =
            quarantine::retry::retry(client, &Selection::Ids(ids), Some(interval), &|_, _| {})
                .await?;
        info!(%table, %range, stored = retried.stored, "stored rows that had waited for their partition");
    }
    Ok(())
}
