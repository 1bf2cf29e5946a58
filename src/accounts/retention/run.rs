//! One run of the retention: all tables, one after the other.

use tokio_postgres::Client;

use super::detach::{self, Removed};
use super::policy::{Policy, before};
use super::{defaults, own};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions::error::Error;
use crate::postgres::advisory_lock::{self, Holder};
use crate::postgres::error as postgres;

/// Key of the advisory lock: "ingestRT" in ASCII, so that an operator can recognise it in
/// `pg_locks`.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"ingestRT");

/// What a run removed.
#[derive(Debug, Default)]
pub struct Report {
    pub removed: Vec<Removed>,
    /// Rows that were deleted from DEFAULT partitions.
    pub default_rows: i64,
    /// Rows that were removed from the quarantine.
    pub quarantined: i64,
    /// Dead spools: their ledger rows were added up.
    pub spools: u64,
    /// Entries of the partition log.
    pub log_entries: u64,
    /// What is still there, and why.
    pub failed: Vec<(String, Error)>,
    /// Tables with a retention that belong to another role.
    pub not_owned: Vec<Table>,
    /// Another process is at it.
    pub is_busy: bool,
}

/// Removes what is older than it is kept at `now`, which is the server's time.
///
/// # Errors
///
/// When the connection is lost or the catalog cannot be read. What was begun is finished by the
/// next run.
pub async fn retain(client: &mut Client, policy: &Policy, now: Micros) -> Result<Report, Error> {
    let mut report = Report::default();
    let lock = advisory_lock::try_lock(client, LOCK_KEY).await;
    if lock
        .map_err(statement("take the lock of the retention"))?
        .is_none()
    {
        report.is_busy = true;
        return Ok(report);
    }
    let done = locked(client, policy, now, &mut report).await;
    let unlocked = advisory_lock::unlock(client, LOCK_KEY).await;
    done?;
    unlocked.map_err(statement("give the lock of the retention back"))?;
    Ok(report)
}

/// The session that removes something now, if any.
///
/// # Errors
///
/// When the connection is lost.
pub async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    let holder = advisory_lock::holder(client, LOCK_KEY).await;
    holder.map_err(statement("find out who removes partitions"))
}

async fn locked(
    client: &mut Client,
    policy: &Policy,
    now: Micros,
    report: &mut Report,
) -> Result<(), Error> {
    for table in Table::ALL {
        let cutoff = policy.cutoff(table, now);
        if !owns(client, table).await? {
            report.not_owned.extend(cutoff.map(|_| table));
            continue;
        }
        // What fails for one table does not hold up the others.
        let done = remove(client, table, cutoff, policy, report).await;
        if let Err(error) = done {
            if client.is_closed() {
                return Err(error);
            }
            report.failed.push((table.to_string(), error));
        }
    }
    if let Some(kept) = policy.quarantine {
        let deleting = own::delete_quarantined(client, before(now, kept)).await;
        report.quarantined = deleting.map_err(statement("remove old rows from the quarantine"))?;
    }
    if let Some(kept) = policy.accounts {
        let since = before(now, kept);
        let folding = own::fold_dead_spools(client, since).await;
        report.spools = folding.map_err(statement("add up the accounts of dead spools"))?;
        let deleting = own::delete_log(client, since).await;
        report.log_entries =
            deleting.map_err(statement("remove old entries of the partition log"))?;
    }
    Ok(())
}

async fn remove(
    client: &mut Client,
    table: Table,
    cutoff: Option<Micros>,
    policy: &Policy,
    report: &mut Report,
) -> Result<(), Error> {
    let outcome = detach::run(client, table, cutoff, policy.keeps_detached).await?;
    report.removed.extend(outcome.removed);
    report.failed.extend(outcome.failed);
    if let Some(default) = &outcome.default {
        report.default_rows += defaults::delete_old(client, table, default).await?;
    }
    Ok(())
}

async fn owns(client: &Client, table: Table) -> Result<bool, Error> {
    let sql = "SELECT coalesce(bool_and(pg_has_role(relowner, 'USAGE')), true) FROM pg_class
                WHERE oid = to_regclass($1)";
    let asking = client.query_one(sql, &[&table.as_str()]).await;
    let row = asking.map_err(statement("find out who owns the event tables"))?;
    Ok(row.get(0))
}

pub(super) fn statement(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| postgres::Error::Statement { doing, source }.into()
}
