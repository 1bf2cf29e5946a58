//! Removes what the service's own tables have kept for long enough: rows in quarantine, the ledger
//! rows of dead spools, and log entries of partitions that are gone.
//!
//! Invariant: the sums over the ledger stay. A dead spool's counts are added to the rows of the nil
//! instance, in the transaction that removes its own.

use std::time::Duration;

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::accounts::ledger::{ADD, spool_lock};
use crate::accounts::removed::{self, Kind, QUARANTINE, Reason};
use crate::event::table::Table;
use crate::event::time::Micros;

/// Rows of one step.
const ROWS_MAX: i64 = 1_000;

/// The pause between two steps.
const PAUSE: Duration = Duration::from_millis(100);

/// Spools that nothing was stored from, and that were not opened, since parameter 2. Parameter 1 is
/// the nil instance. A log that several read, such as a topic, is never dead: without its rows it
/// would be read from its beginning again. Rows of a table that this version does not know (3 has those that it knows)
/// have no place among the sums.
pub(super) const DEAD_SPOOLS: &str = "
    SELECT entered.instance_id, entered.lineage
      FROM ingest_ledger AS entered
      LEFT JOIN ingest_holders AS holder USING (instance_id, lineage)
     WHERE entered.instance_id <> $1
     GROUP BY 1, 2
    HAVING greatest(max(entered.updated_at), max(holder.since)) < $2
       AND bool_and(entered.table_name = ANY ($3))
       AND NOT coalesce(bool_or(holder.is_shared), false)";

/// Of a log entry: it is from before parameter 1, and its partition is gone.
pub(super) const OLD_LOG: &str = "entry.at < $1
    AND NOT EXISTS (SELECT FROM pg_class WHERE relname = entry.partition_name)";

/// Removes rows that were quarantined before `before`. Returns how many.
pub(super) async fn delete_quarantined(client: &mut Client, before: Micros) -> Result<i64, Error> {
    let words = format!("quarantined before {before}, which is longer than they are kept");
    let reason = Reason {
        table: QUARANTINE,
        kind: Kind::Retention,
        words: &words,
        tenant: None,
    };
    let (mut all, mut entry) = (0, None);
    loop {
        let tx = client.transaction().await?;
        let row = tx
            .query_one(
                "WITH gone AS (
                     DELETE FROM ingest_quarantine WHERE id = ANY (ARRAY(
                         SELECT id FROM ingest_quarantine WHERE quarantined_at < $1
                          ORDER BY id LIMIT $2))
                     RETURNING id)
                 SELECT count(*) FROM gone",
                &[&before, &ROWS_MAX],
            )
            .await?;
        let rows: i64 = row.get(0);
        if rows == 0 {
            return Ok(all);
        }
        removed::add(&tx, &mut entry, &reason, rows).await?;
        tx.commit().await?;
        all += rows;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Adds up the ledger rows of spools that nothing was stored from, and that were not opened, since
/// `before`, and that no lane is connected for. Returns the number of spools.
pub(super) async fn fold_dead_spools(client: &mut Client, before: Micros) -> Result<u64, Error> {
    let tables = Table::ALL.map(Table::as_str);
    let streams = Table::ALL.map(|table| table as i16);
    let dead = client
        .query(DEAD_SPOOLS, &[&Uuid::nil(), &before, &tables.as_slice()])
        .await?;
    let mut folded = 0;
    for row in dead {
        let (spool, lineage): (Uuid, Uuid) = (row.get(0), row.get(1));
        let tx = client.transaction().await?;
        let key = spool_lock(spool, lineage);
        let is_dead: bool = tx
            .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&key])
            .await?
            .get(0);
        if !is_dead {
            continue;
        }
        tx.execute(
            &format!(
                "WITH gone AS (
                 DELETE FROM ingest_ledger WHERE instance_id = $1 AND lineage = $2
                 RETURNING table_name, stored, duplicates, quarantined, dropped)
             INSERT INTO ingest_ledger AS entry
                    (instance_id, stream, table_name, settled, stored, duplicates, quarantined, dropped)
             SELECT $3, known.stream, known.table_name, 0, sum(stored), sum(duplicates),
                    sum(quarantined), sum(dropped)
               FROM gone JOIN unnest($4::text[], $5::smallint[]) AS known (table_name, stream)
                    USING (table_name)
              GROUP BY known.stream, known.table_name
              {ADD}"
            ),
            &[&spool, &lineage, &Uuid::nil(), &tables.as_slice(), &streams.as_slice()],
        )
        .await?;
        tx.execute(
            "DELETE FROM ingest_holders WHERE instance_id = $1 AND lineage = $2",
            &[&spool, &lineage],
        )
        .await?;
        tx.commit().await?;
        folded += 1;
    }
    Ok(folded)
}

/// Removes log entries from before `before` about partitions that are gone. Returns how many.
pub(super) async fn delete_log(client: &Client, before: Micros) -> Result<u64, Error> {
    let sql = format!("DELETE FROM ingest_partition_log AS entry WHERE {OLD_LOG}");
    client.execute(&sql, &[&before]).await
}
