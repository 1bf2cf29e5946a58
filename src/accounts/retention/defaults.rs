//! Removes old rows from a DEFAULT partition, which cannot be detached for them.
//!
//! Invariant: each step removes rows and books them in one transaction. Between two steps the lanes
//! have the server.

use std::time::Duration;

use tokio_postgres::Client;

use crate::accounts::removed::{self, Kind, Reason};
use crate::event::table::Table;
use crate::partitions::catalog::{Partition, begin};
use crate::partitions::error::Error;
use crate::partitions::literal::timestamp;
use crate::postgres::ident::qualified;

/// Rows of one step.
const ROWS_MAX: i64 = 5_000;

/// The pause between two steps.
const PAUSE: Duration = Duration::from_millis(100);

/// Deletes the rows before `kept_from_us`. Returns how many.
pub(super) async fn delete_old(
    client: &mut Client,
    table: Table,
    (default, kept_from_us): &(Partition, i64),
) -> Result<i64, Error> {
    let leaf = qualified(&default.schema, &default.name);
    let before = timestamp(*kept_from_us);
    let words = format!(
        "rows of {} before {before} are older than what is kept",
        default.name
    );
    let reason = Reason {
        table: table.as_str(),
        kind: Kind::Retention,
        words: &words,
        tenant: None,
    };
    let delete = format!(
        "WITH gone AS (
             DELETE FROM {leaf} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM {leaf} WHERE occurred_at < '{before}' LIMIT {ROWS_MAX}))
             RETURNING event_id)
         SELECT count(*), count(event_id) FROM gone"
    );
    let failed = |source| Error::Postgres {
        doing: "remove old rows from the default partition",
        table,
        source,
    };
    let (mut all, mut entry) = (0, None);
    loop {
        let tx = begin(client, table, false).await?;
        let row = tx.query_one(&delete, &[]).await.map_err(failed)?;
        let (rows, booked): (i64, i64) = (row.get(0), row.get(1));
        if rows == 0 {
            return Ok(all);
        }
        removed::add(&tx, &mut entry, &reason, booked)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        all += rows;
        tokio::time::sleep(PAUSE).await;
    }
}
