//! Which items sessions have seen together.
//!
//! The score of two items is the number of the day's sessions that saw both. An exposure without a
//! session is a session by itself. Of each surface the first items in the order of their ids are kept, as
//! the suite keeps them, with the neighbors that they share most sessions with.
//!
//! The items that are kept are the first ones by id. So of two items that go together, if one is kept
//! the lower one is: pairs are counted once, from below, and only where the lower item is kept.

use tokio_postgres::{Error, Transaction};

use super::{Counted, Limits, namespace, trimmed};
use crate::jobs::day::TenantDay;

/// Replaces a day's rows in `item_covisit_daily`. Returns the number of sessions that were left out,
/// too.
///
/// Needs the table `ingest_namespaces` that `popularity` leaves.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    day: &TenantDay,
    limits: &Limits,
) -> Result<(Counted, u64), Error> {
    transaction.batch_execute(&sessions(day, limits)).await?;
    transaction.batch_execute(&pairs(limits)).await?;
    let stale = transaction.execute(&delete_stale(day), &[]).await?;
    let TenantDay { tenant, day, .. } = day;
    let fresh = transaction
        .execute(
            &format!(
                "INSERT INTO item_covisit_daily AS old
                     (tenant_id, namespace, item_id, neighbor_id, day, score)
                 SELECT '{tenant}'::uuid, namespace, item_id, neighbor_id, date '{day}', sessions
                   FROM ingest_neighbors
                  ORDER BY namespace, item_id, neighbor_id
                     ON CONFLICT (tenant_id, namespace, item_id, neighbor_id, day) DO UPDATE
                    SET score = excluded.score, updated_at = now()
                  WHERE old.score <> excluded.score"
            ),
            &[],
        )
        .await?;
    let session_items_max = limits.session_items_max;
    let row = transaction
        .query_one(
            &format!(
                "SELECT (SELECT count(*) FROM ingest_neighbors),
                        (SELECT count(*) FROM ingest_seen WHERE items > {session_items_max})"
            ),
            &[],
        )
        .await?;
    let counted = Counted {
        rows: row.get::<_, i64>(0).unsigned_abs(),
        changed: stale + fresh,
    };
    Ok((counted, row.get::<_, i64>(1).unsigned_abs()))
}

/// What each session saw, into the temporary table `ingest_seen`: sessions with a pair, and one row
/// of each that saw too much. And the last item that is kept of each surface, into `ingest_last`.
///
/// Sessions are numbered while lists are whole, as there are far fewer of them. The items are then
/// sorted by a number and not by two texts.
fn sessions(day: &TenantDay, limits: &Limits) -> String {
    let (condition, namespace) = (day.condition(), namespace());
    let session = trimmed("e.session_id");
    let item = trimmed("i.item_id");
    let Limits {
        items_max,
        session_items_max,
        ..
    } = limits;
    format!(
        "CREATE TEMPORARY TABLE ingest_lists ON COMMIT DROP AS
         SELECT {namespace} COLLATE \"C\" AS namespace,
                coalesce(nullif({session}, ''), e.request_id::text) COLLATE \"C\" AS session,
                jsonb_path_query_array(e.response -> 'items', '$[*].item_id') AS items
           FROM exposure_events AS e
          WHERE {condition} AND jsonb_typeof(e.response -> 'items') = 'array';
         ANALYZE ingest_lists;
         CREATE TEMPORARY TABLE ingest_seen ON COMMIT DROP AS
         SELECT namespace, number AS session, item_id, items
           FROM (SELECT namespace, number, item_id,
                        count(*) OVER (PARTITION BY number) AS items,
                        row_number() OVER (PARTITION BY number) AS place
                   FROM (SELECT DISTINCT number, {item} COLLATE \"C\" AS item_id, namespace
                           FROM (SELECT namespace, items,
                                        dense_rank() OVER (ORDER BY namespace, session) AS number
                                   FROM ingest_lists) AS list
                          CROSS JOIN LATERAL jsonb_array_elements_text(list.items) AS i (item_id)
                          WHERE {item} <> '') AS distinct_items) AS sized
          WHERE items > 1 AND (items <= {session_items_max} OR place = 1);
         DROP TABLE ingest_lists;
         CREATE TEMPORARY TABLE ingest_last ON COMMIT DROP AS
         SELECT namespace, max(item_id) AS item_id
           FROM (SELECT namespace, item_id,
                        row_number() OVER (PARTITION BY namespace ORDER BY item_id) AS place
                   FROM ingest_seen
                  WHERE items <= {session_items_max}
                  GROUP BY namespace, item_id) AS ordered
          WHERE place <= {items_max}
          GROUP BY namespace;
         ANALYZE ingest_seen; ANALYZE ingest_last"
    )
}

/// Counts pairs, and ranks each item's neighbors into the temporary table `ingest_neighbors`.
fn pairs(limits: &Limits) -> String {
    let Limits {
        neighbors_max,
        sessions_min,
        session_items_max,
        ..
    } = limits;
    format!(
        "CREATE TEMPORARY TABLE ingest_pairs ON COMMIT DROP AS
         SELECT low.namespace, low.item_id AS low, high.item_id AS high, count(*) AS sessions
           FROM ingest_seen AS low
           JOIN ingest_last AS last
             ON last.namespace = low.namespace AND low.item_id <= last.item_id
           JOIN ingest_seen AS high
             ON high.session = low.session AND high.item_id > low.item_id
          WHERE low.items <= {session_items_max}
          GROUP BY 1, 2, 3
         HAVING count(*) >= {sessions_min};
         CREATE TEMPORARY TABLE ingest_neighbors ON COMMIT DROP AS
         SELECT namespace, item_id, neighbor_id, sessions
           FROM (SELECT *, row_number() OVER (PARTITION BY namespace, item_id
                                              ORDER BY sessions DESC, neighbor_id) AS place
                   FROM (SELECT namespace, low AS item_id, high AS neighbor_id, sessions
                           FROM ingest_pairs
                          UNION ALL
                         SELECT namespace, high, low, sessions
                           FROM ingest_pairs JOIN ingest_last AS last USING (namespace)
                          WHERE high <= last.item_id) AS directed) AS ranked
          WHERE place <= {neighbors_max};
         ANALYZE ingest_neighbors"
    )
}

/// Deletes the day's rows that are no longer right.
///
/// The table's indexes do not begin with the day: they are entered once for each item of a surface.
fn delete_stale(day: &TenantDay) -> String {
    let TenantDay { tenant, day, .. } = day;
    format!(
        "WITH RECURSIVE listed AS (
             SELECT n.namespace COLLATE \"default\" AS namespace,
                    (SELECT min(first.item_id) FROM item_covisit_daily AS first
                      WHERE first.tenant_id = '{tenant}'::uuid
                        AND first.namespace = n.namespace COLLATE \"default\") AS item_id
               FROM ingest_namespaces AS n
              UNION ALL
             SELECT listed.namespace,
                    (SELECT min(next.item_id) FROM item_covisit_daily AS next
                      WHERE next.tenant_id = '{tenant}'::uuid
                        AND next.namespace = listed.namespace
                        AND next.item_id > listed.item_id)
               FROM listed
              WHERE listed.item_id IS NOT NULL)
         DELETE FROM item_covisit_daily AS old
          USING listed
          WHERE old.tenant_id = '{tenant}'::uuid
            AND old.namespace = listed.namespace
            AND old.item_id = listed.item_id
            AND old.day = date '{day}'
            AND NOT EXISTS (SELECT FROM ingest_neighbors AS new
                             WHERE new.namespace = old.namespace COLLATE \"C\"
                               AND new.item_id = old.item_id COLLATE \"C\"
                               AND new.neighbor_id = old.neighbor_id COLLATE \"C\")"
    )
}
