-- Which days of which tenant have changed, and which of these changes the item
-- signals have seen; and how well interactions find their exposures.
-- See docs/decisions/0023-changed-days.md.

-- A row belongs to one lane, which alone updates it, in the transaction that
-- stores its batch: lanes never wait for each other here, nor for a reader.
-- Half-filled pages keep those updates within the page (HOT). Quarantined rows
-- that are stored later are marked under the nil instance, as in the ledger.
CREATE TABLE ingest_changed_days (
    tenant_id   uuid NOT NULL,
    day         date NOT NULL,
    table_name  text NOT NULL,
    instance_id uuid NOT NULL,
    lineage     uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    stream      smallint NOT NULL,
    changes     bigint NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, day, table_name, instance_id, lineage, stream)
) WITH (fillfactor = 50);
COMMENT ON TABLE ingest_changed_days IS 'the UTC days that committed batches have added rows to, by tenant, table and lane';
COMMENT ON COLUMN ingest_changed_days.changes IS 'another number after each batch; it begins with the time in microseconds, so that no number comes twice';

-- The numbers that the item signals of a day were computed after.
CREATE TABLE ingest_computed_days (
    tenant_id   uuid NOT NULL,
    day         date NOT NULL,
    table_name  text NOT NULL,
    instance_id uuid NOT NULL,
    lineage     uuid NOT NULL,
    stream      smallint NOT NULL,
    changes     bigint NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, day, table_name, instance_id, lineage, stream)
);
COMMENT ON TABLE ingest_computed_days IS 'the marks of ingest_changed_days that the signals of a day were computed with';

-- How many interactions of a UTC day find their exposure, by tenant and surface.
-- An interaction's exposure has its tenant and request_id, and was shown at most
-- `lookback` before it, or an hour after it: clocks differ. One statement that is
-- neither strict nor volatile, so that the planner sees through it and prunes
-- partitions.
CREATE FUNCTION ingest_join_quality_of(
    from_day date, to_day date, of_tenant uuid, lookback interval, late_after interval)
RETURNS TABLE (
    day date, tenant_id uuid, tenant text, surface text, interactions bigint, joined bigint,
    share numeric, without_token bigint, token_unknown bigint, item_not_listed bigint,
    position_differs bigint, late bigint, exposure_after bigint)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT one.day,
           one.tenant_id,
           t.external_id,
           one.surface,
           count(*),
           count(*) FILTER (WHERE one.is_found),
           round(count(*) FILTER (WHERE one.is_found)::numeric / count(*), 4),
           count(*) FILTER (WHERE NOT one.has_token),
           count(*) FILTER (WHERE one.has_token AND NOT one.is_found),
           count(*) FILTER (WHERE one.is_found AND NOT one.is_listed),
           count(*) FILTER (WHERE one.is_listed AND NOT one.is_at_position),
           count(*) FILTER (WHERE one.is_late),
           count(*) FILTER (WHERE one.came_first)
      FROM (SELECT (found.occurred_at AT TIME ZONE 'UTC')::date AS day,
                   found.tenant_id,
                   coalesce(nullif(found.surface, ''), min(found.shown_on), '') AS surface,
                   found.has_token,
                   bool_or(found.is_found) AS is_found,
                   coalesce(bool_or(found.is_listed), false) AS is_listed,
                   coalesce(bool_or(found.is_at_position), false) AS is_at_position,
                   coalesce(found.received_at > found.occurred_at + late_after, false) AS is_late,
                   coalesce(min(found.shown_received_at) > found.received_at, false) AS came_first
              FROM (SELECT i.tableoid, i.ctid, i.tenant_id, i.occurred_at, i.received_at, i.surface,
                           i.request_id IS NOT NULL AS has_token,
                           e.request_id IS NOT NULL AS is_found,
                           e.surface AS shown_on,
                           e.received_at AS shown_received_at,
                           e.response -> 'items' @>
                               jsonb_build_array(jsonb_build_object('item_id', i.item_id)) AS is_listed,
                           i.position IS NULL
                           OR e.response -> 'items' @> jsonb_build_array(
                               jsonb_build_object('item_id', i.item_id, 'rank', i.position))
                           -- An item without a rank has the one of its place.
                           OR i.position > 0
                              AND e.response -> 'items' -> (i.position - 1) ->> 'item_id' = i.item_id
                              AND NOT e.response -> 'items' -> (i.position - 1) ? 'rank' AS is_at_position
                      FROM interaction_events AS i
                      LEFT JOIN exposure_events AS e
                        ON e.tenant_id = i.tenant_id
                       AND e.request_id = i.request_id
                       AND e.occurred_at >= i.occurred_at - lookback
                       AND e.occurred_at < i.occurred_at + interval '1 hour'
                       AND e.occurred_at >= from_day::timestamp AT TIME ZONE 'UTC' - lookback
                       AND e.occurred_at < (to_day + 1)::timestamp AT TIME ZONE 'UTC' + interval '1 hour'
                       AND (of_tenant IS NULL OR e.tenant_id = of_tenant)
                     WHERE i.occurred_at >= from_day::timestamp AT TIME ZONE 'UTC'
                       AND i.occurred_at < (to_day + 1)::timestamp AT TIME ZONE 'UTC'
                       AND (of_tenant IS NULL OR i.tenant_id = of_tenant)
                    -- Not merged with the query around it, which would sort whole lists.
                    OFFSET 0) AS found
             -- By row: an interaction counts once, however often its list was logged.
             GROUP BY found.tableoid, found.ctid, found.tenant_id, found.occurred_at,
                      found.received_at, found.surface, found.has_token) AS one
      LEFT JOIN tenants AS t ON t.id = one.tenant_id
     GROUP BY 1, 2, 3, 4
$$;
COMMENT ON FUNCTION ingest_join_quality_of IS 'how many interactions of these days find their exposure, by day, tenant and surface';

-- The last thirty days. Only the days that a query's WHERE asks for are read.
CREATE VIEW ingest_join_quality AS
SELECT days.day, q.tenant_id, q.tenant, q.surface, q.interactions, q.joined, q.share,
       q.without_token, q.token_unknown, q.item_not_listed, q.position_differs, q.late,
       q.exposure_after
  FROM (SELECT (now() AT TIME ZONE 'UTC')::date - ago AS day FROM generate_series(0, 29) AS ago) AS days
 CROSS JOIN LATERAL ingest_join_quality_of(
       days.day, days.day, NULL, interval '7 days', interval '1 hour') AS q;
