//! How often each item was shown.
//!
//! The score of an item is its number in the day's lists: an item that a list repeats, or a list that
//! was logged twice, counts each time.

use tokio_postgres::{Error, Transaction};

use super::{Counted, LISTED, Limits, namespace, trimmed};
use crate::jobs::day::TenantDay;

/// Replaces a day's rows in `item_popularity_daily`. Returns the number of items shown, too.
///
/// Leaves the surfaces of the day in the temporary table `ingest_namespaces`.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    day: &TenantDay,
    limits: &Limits,
) -> Result<(Counted, u64), Error> {
    transaction.batch_execute(&count(day, limits)).await?;
    let TenantDay { tenant, day, .. } = day;
    let stale = transaction
        .execute(
            &format!(
                "DELETE FROM item_popularity_daily AS old
                  USING ingest_namespaces AS n
                  WHERE old.tenant_id = '{tenant}'::uuid
                    AND old.namespace = n.namespace
                    AND old.day = date '{day}'
                    AND NOT EXISTS (SELECT FROM ingest_popular AS new
                                     WHERE new.namespace = old.namespace
                                       AND new.item_id = old.item_id)"
            ),
            &[],
        )
        .await?;
    // Rows that stay as they are are not written: a run every few minutes would leave as many dead
    // rows each time.
    let fresh = transaction
        .execute(
            &format!(
                "INSERT INTO item_popularity_daily AS old (tenant_id, namespace, item_id, day, score)
                 SELECT '{tenant}'::uuid, namespace, item_id, date '{day}', shown
                   FROM ingest_popular
                  ORDER BY namespace, item_id
                     ON CONFLICT (tenant_id, namespace, item_id, day) DO UPDATE
                    SET score = excluded.score, updated_at = now()
                  WHERE old.score <> excluded.score"
            ),
            &[],
        )
        .await?;
    let row = transaction
        .query_one(
            "SELECT (SELECT count(*) FROM ingest_popular),
                    (SELECT coalesce(sum(shown), 0)::bigint FROM ingest_namespaces)",
            &[],
        )
        .await?;
    let counted = Counted {
        rows: row.get::<_, i64>(0).unsigned_abs(),
        changed: stale + fresh,
    };
    Ok((counted, row.get::<_, i64>(1).unsigned_abs()))
}

/// Counts into temporary tables: only a statement that writes none but those may be parallel.
fn count(day: &TenantDay, limits: &Limits) -> String {
    let (condition, namespace) = (day.condition(), namespace());
    let item = trimmed("raw.item_id");
    let items_max = limits.items_max;
    format!(
        "CREATE TEMPORARY TABLE ingest_shown ON COMMIT DROP AS
         SELECT e.surface, listed.item ->> 'item_id' AS item_id, count(*) AS shown
           FROM exposure_events AS e CROSS JOIN LATERAL {LISTED}
          WHERE {condition}
          GROUP BY 1, 2;
         CREATE TEMPORARY TABLE ingest_items ON COMMIT DROP AS
         SELECT {namespace} AS namespace, {item} AS item_id, sum(e.shown)::bigint AS shown
           FROM ingest_shown AS e CROSS JOIN LATERAL (VALUES (e.item_id)) AS raw (item_id)
          WHERE {item} <> ''
          GROUP BY 1, 2;
         CREATE TEMPORARY TABLE ingest_namespaces ON COMMIT DROP AS
         SELECT namespace, sum(shown) AS shown FROM ingest_items GROUP BY 1;
         CREATE TEMPORARY TABLE ingest_popular ON COMMIT DROP AS
         SELECT namespace, item_id, shown
           FROM (SELECT *, row_number() OVER (PARTITION BY namespace
                                              ORDER BY shown DESC, item_id COLLATE \"C\") AS place
                   FROM ingest_items) AS ranked
          WHERE place <= {items_max};
         ANALYZE ingest_namespaces; ANALYZE ingest_popular"
    )
}
