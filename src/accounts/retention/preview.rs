//! What a run of the retention would remove. Changes nothing.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use super::detach::due;
use super::own::{DEAD_SPOOLS, OLD_LOG};
use super::policy::{Policy, before, kept_from};
use super::run::statement;
use crate::accounts::ledger::spool_lock;
use crate::accounts::removed::QUARANTINE;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions::catalog::{
    Bound, PartitionInfo, begin, end, list, read_parent, read_partitions,
};
use crate::partitions::error::Error;
use crate::partitions::literal::timestamp;
use crate::postgres::ident::qualified;

/// What would go.
#[derive(Clone, Debug)]
pub enum Due {
    /// A partition with all its rows.
    Partition(Table, PartitionInfo),
    /// Rows of a table that stays.
    Rows {
        /// The table, or the table of the DEFAULT partition that holds them.
        table: &'static str,
        /// The DEFAULT partition, without its schema.
        default: Option<String>,
        /// They are older than this.
        before: Micros,
        /// How many they are.
        count: i64,
    },
}

/// All that a run would remove at `now`, which is the server's time: of each event table partitions
/// in order of time and rows of its DEFAULT partition; then rows of the service's own tables.
///
/// # Errors
///
/// When the connection is lost or a table cannot be read.
pub async fn preview(client: &mut Client, policy: &Policy, now: Micros) -> Result<Vec<Due>, Error> {
    let mut all = Vec::new();
    for table in Table::ALL {
        if let Some(cutoff) = policy.cutoff(table, now) {
            of_table(client, table, cutoff, &mut all).await?;
        }
    }
    if let Some(kept) = policy.quarantine {
        let before = before(now, kept);
        let sql = "SELECT count(*) FROM ingest_quarantine WHERE quarantined_at < $1";
        let rows = count(client, sql, &[&before], "count old rows of the quarantine").await?;
        all.extend(rows_of(QUARANTINE, None, before, rows));
    }
    if let Some(kept) = policy.accounts {
        let before = before(now, kept);
        let rows = dead_rows(client, before).await;
        let rows = rows.map_err(statement("find dead spools"))?;
        all.extend(rows_of("ingest_ledger", None, before, rows));
        let sql = format!("SELECT count(*) FROM ingest_partition_log AS entry WHERE {OLD_LOG}");
        let rows = count(client, &sql, &[&before], "count old log entries").await?;
        all.extend(rows_of("ingest_partition_log", None, before, rows));
    }
    Ok(all)
}

async fn of_table(
    client: &mut Client,
    table: Table,
    cutoff: Micros,
    all: &mut Vec<Due>,
) -> Result<(), Error> {
    let infos = list(client, table).await?;
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let partitions = read_partitions(&tx, &parent).await?;
    let due = due(&partitions, Some(cutoff));
    let is_due = |info: &PartitionInfo| due.iter().any(|(leaf, _)| leaf.name == info.name);
    let infos = infos.into_iter().filter(is_due);
    all.extend(infos.map(|info| Due::Partition(table, info)));
    let kept_from = Micros(kept_from(cutoff, due.iter().map(|(_, range)| range.to_us)));
    for default in partitions.iter().filter(|p| p.bound == Bound::Default) {
        let sql = format!(
            "SELECT count(*) FROM {} WHERE occurred_at < '{}'",
            qualified(&default.schema, &default.name),
            timestamp(kept_from.0)
        );
        let rows = count(&tx, &sql, &[], "count old rows of the default partition").await?;
        all.extend(rows_of(
            table.as_str(),
            Some(&default.name),
            kept_from,
            rows,
        ));
    }
    end(tx, table).await
}

/// Ledger rows of dead spools; a lane that is connected holds the lock of its spool.
async fn dead_rows(client: &Client, before: Micros) -> Result<i64, tokio_postgres::Error> {
    let tables = Table::ALL.map(Table::as_str);
    let parameters: &[&(dyn ToSql + Sync)] = &[&Uuid::nil(), &before, &tables.as_slice()];
    let dead = client.query(DEAD_SPOOLS, parameters).await?;
    let spools: Vec<Uuid> = dead.iter().map(|row| row.get(0)).collect();
    let lineages: Vec<Uuid> = dead.iter().map(|row| row.get(1)).collect();
    let pairs = spools.iter().zip(&lineages);
    let keys: Vec<i64> = pairs
        .map(|(spool, lineage)| spool_lock(*spool, *lineage))
        .collect();
    let row = client
        .query_one(
            "SELECT count(*)
               FROM ingest_ledger
               JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS dead (instance_id, lineage, key)
                    USING (instance_id, lineage)
              WHERE NOT EXISTS (
                    SELECT FROM pg_locks AS held
                     WHERE held.locktype = 'advisory' AND held.objsubid = 1
                       AND (held.classid::bigint << 32) | held.objid::bigint = dead.key)",
            &[&spools, &lineages, &keys],
        )
        .await?;
    Ok(row.get(0))
}

fn rows_of(table: &'static str, default: Option<&str>, before: Micros, count: i64) -> Option<Due> {
    (count > 0).then(|| Due::Rows {
        table,
        default: default.map(str::to_owned),
        before,
        count,
    })
}

async fn count(
    client: &impl GenericClient,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
    doing: &'static str,
) -> Result<i64, Error> {
    let row = client.query_one(sql, parameters).await;
    Ok(row.map_err(statement(doing))?.get(0))
}
