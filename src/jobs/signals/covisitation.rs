//! Which items sessions have seen together.
//!
//! The score of two items is the number of the day's sessions that saw both. An exposure without a
//! session is a session by itself. Of each surface the first items in the order of their ids are kept, as
//! the suite keeps them, with the neighbors that they share most sessions with.
//!
//! The items that are kept are the first ones by id, whether or not sessions enough share another with
//! them. So they are known before anything is counted, and each is counted by itself: the sessions
//! that saw it are looked up, and what else they saw. No more is held than the neighbors of one item,
//! however many pairs the day has.

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
    transaction.batch_execute(&items(limits)).await?;
    transaction.batch_execute(&neighbors(limits)).await?;
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
    let row = transaction
        .query_one(
            "SELECT (SELECT count(*) FROM ingest_neighbors),
                    (SELECT count(*) FROM ingest_sessions WHERE items IS NULL)",
            &[],
        )
        .await?;
    let counted = Counted {
        rows: row.get::<_, i64>(0).unsigned_abs(),
        changed: stale + fresh,
    };
    Ok((counted, row.get::<_, i64>(1).unsigned_abs()))
}

/// What each session saw, into the temporary table `ingest_sessions`: sessions with a pair, without
/// items if they saw too much. And the names of items, into `ingest_names`.
///
/// Sessions and items become numbers, which sort and hash several times as fast as texts. Sessions
/// are numbered while lists are whole, as there are far fewer of them. Items are numbered in the
/// order of surface and id, so that numbers are in the order of ids.
fn sessions(day: &TenantDay, limits: &Limits) -> String {
    let (condition, namespace) = (day.condition(), namespace());
    let session = trimmed("e.session_id");
    let item = trimmed("raw");
    let session_items_max = limits.session_items_max;
    format!(
        "CREATE TEMPORARY TABLE ingest_lists ON COMMIT DROP AS
         SELECT {namespace} COLLATE \"C\" AS namespace,
                coalesce(nullif({session}, ''), e.request_id::text) COLLATE \"C\" AS session,
                jsonb_path_query_array(e.response -> 'items', '$[*].item_id') AS items
           FROM exposure_events AS e
          WHERE {condition} AND jsonb_typeof(e.response -> 'items') = 'array';
         ANALYZE ingest_lists;
         CREATE TEMPORARY TABLE ingest_listed ON COMMIT DROP AS
         SELECT list.namespace, list.number AS session, i.raw
           FROM (SELECT namespace, items,
                        dense_rank() OVER (ORDER BY namespace, session)::int AS number
                   FROM ingest_lists) AS list
          CROSS JOIN LATERAL jsonb_array_elements_text(list.items) AS i (raw);
         DROP TABLE ingest_lists;
         ANALYZE ingest_listed;
         CREATE TEMPORARY TABLE ingest_ids ON COMMIT DROP AS
         SELECT namespace, raw, item_id, dense_rank() OVER (ORDER BY namespace, item_id)::int AS item
           FROM (SELECT namespace, raw, {item} COLLATE \"C\" AS item_id
                   FROM (SELECT DISTINCT namespace, raw FROM ingest_listed) AS written) AS named
          WHERE item_id <> '';
         ANALYZE ingest_ids;
         CREATE TEMPORARY TABLE ingest_sessions ON COMMIT DROP AS
         SELECT session, CASE WHEN count(*) <= {session_items_max}
                              THEN array_agg(item) FILTER (WHERE place <= {session_items_max})
                          END AS items
           FROM (SELECT session, item,
                        row_number() OVER (PARTITION BY session ORDER BY item) AS place
                   FROM (SELECT DISTINCT listed.session, ids.item
                           FROM ingest_listed AS listed
                           JOIN ingest_ids AS ids
                             ON ids.namespace = listed.namespace AND ids.raw = listed.raw) AS seen) AS placed
          GROUP BY session
         HAVING count(*) > 1;
         DROP TABLE ingest_listed;
         CREATE UNIQUE INDEX ON ingest_sessions (session);
         CREATE TEMPORARY TABLE ingest_names ON COMMIT DROP AS
         SELECT DISTINCT item, namespace, item_id FROM ingest_ids;
         DROP TABLE ingest_ids;
         ANALYZE ingest_sessions; ANALYZE ingest_names"
    )
}

/// The items of each surface that are kept, into the temporary table `ingest_kept`, and the sessions
/// that saw them, into `ingest_seen`.
fn items(limits: &Limits) -> String {
    let items_max = limits.items_max;
    format!(
        "CREATE TEMPORARY TABLE ingest_kept ON COMMIT DROP AS
         SELECT namespace, item_id, item
           FROM (SELECT names.namespace, names.item_id, names.item,
                        row_number() OVER (PARTITION BY names.namespace ORDER BY names.item) AS place
                   FROM ingest_names AS names
                   JOIN (SELECT DISTINCT unnest(items) AS item FROM ingest_sessions) AS seen
                     ON seen.item = names.item) AS ordered
          WHERE place <= {items_max};
         ANALYZE ingest_kept;
         CREATE TEMPORARY TABLE ingest_seen ON COMMIT DROP AS
         SELECT seen.item, seen.session
           FROM (SELECT session, unnest(items) AS item FROM ingest_sessions) AS seen
           JOIN ingest_kept AS kept ON kept.item = seen.item
          ORDER BY seen.item, seen.session;
         CREATE INDEX ON ingest_seen (item);
         ANALYZE ingest_seen"
    )
}

/// Counts and ranks each item's neighbors, into the temporary table `ingest_neighbors`.
fn neighbors(limits: &Limits) -> String {
    let Limits {
        neighbors_max,
        sessions_min,
        ..
    } = limits;
    // A scalar subquery is one index probe for each session of the item. Joined, the planner may
    // choose to read all sessions for each item.
    format!(
        "CREATE TEMPORARY TABLE ingest_neighbors ON COMMIT DROP AS
         SELECT kept.namespace, kept.item_id, names.item_id AS neighbor_id, counted.sessions
           FROM ingest_kept AS kept
          CROSS JOIN LATERAL
                (SELECT neighbor, count(*) AS sessions
                   FROM (SELECT unnest((SELECT session.items FROM ingest_sessions AS session
                                         WHERE session.session = seen.session)) AS neighbor
                           FROM ingest_seen AS seen
                          WHERE seen.item = kept.item) AS together
                  WHERE neighbor <> kept.item
                  GROUP BY neighbor
                 HAVING count(*) >= {sessions_min}
                  ORDER BY sessions DESC, neighbor
                  LIMIT {neighbors_max}) AS counted
           JOIN ingest_names AS names ON names.item = counted.neighbor;
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
