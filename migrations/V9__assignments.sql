-- Assignments to the variants of experiments, and the views that merge them with
-- those that exposures carry. See docs/decisions/0021-assignments.md.

CREATE TABLE ingest_assignments (
    tenant_id     uuid NOT NULL,
    occurred_at   timestamptz NOT NULL,
    event_id      uuid NOT NULL,
    received_at   timestamptz NOT NULL,
    request_id    uuid NOT NULL,
    experiment_id text NOT NULL,
    variant       text NOT NULL,
    user_key      bytea,
    surface       text,
    context       jsonb,
    meta          jsonb,
    PRIMARY KEY (tenant_id, occurred_at, event_id)
) PARTITION BY RANGE (occurred_at);
COMMENT ON TABLE ingest_assignments IS 'who was in which variant of an experiment, as it was posted; experiment_assignments merges these with what exposures say';

DO $$
BEGIN
    -- A server built without lz4 refuses the setting; pglz serves it as well, slower.
    ALTER TABLE ingest_assignments
        ALTER COLUMN context SET COMPRESSION lz4,
        ALTER COLUMN meta SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server has no lz4: ingest_assignments keeps its default compression';
END
$$;

-- One row for a request and an experiment: of several, the one that was made last.
-- So a correction counts, in whatever order they came. An anti-join and no DISTINCT,
-- so that a predicate on the time still prunes partitions.
CREATE VIEW ingest_posted_assignments AS
SELECT a.*
FROM ingest_assignments a
WHERE NOT EXISTS (
    SELECT FROM ingest_assignments later
    WHERE later.tenant_id = a.tenant_id
      AND later.request_id = a.request_id
      AND later.experiment_id = a.experiment_id
      AND (later.occurred_at, later.event_id) > (a.occurred_at, a.event_id));
COMMENT ON VIEW ingest_posted_assignments IS 'the posted assignments, one row for a request and an experiment';

-- Views that are not V4's are left alone: someone made them on purpose. Whether they
-- are is asked of Postgres, which prints equal views equally, so V4's stand here again.
DO $$
DECLARE
    is_ours boolean;
BEGIN
    CREATE VIEW ingest_v4_exposures AS
    SELECT
        e.occurred_at AS ts,
        e.tenant_id,
        t.external_id AS tenant,
        e.surface,
        jsonb_strip_nulls(jsonb_build_object(
            'request_id', coalesce(e.meta ->> 'request_id', e.request_id::text),
            'user_id', coalesce(encode(e.user_key, 'hex'), nullif(e.session_id, ''), e.request_id::text),
            'ts', to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'items', items.list,
            'context', context.pairs || jsonb_strip_nulls(jsonb_build_object(
                -- slices are cut by `tenant`, the service itself writes `tenant_id`: say both
                'tenant', t.external_id,
                'tenant_id', t.external_id,
                'surface', e.surface,
                'segment', e.segment,
                'algo_version', e.algo_version,
                'config_version', e.config_etag,
                'rules_version', e.rules_etag,
                'experiment_id', e.experiment_id,
                'experiment_variant', e.experiment_variant)),
            'latency_ms', CASE jsonb_typeof(e.meta -> 'latency_ms') WHEN 'number' THEN e.meta -> 'latency_ms' END,
            'error', CASE jsonb_typeof(e.meta -> 'error') WHEN 'boolean' THEN e.meta -> 'error' END
        )) AS data
    FROM exposure_events e
    JOIN tenants t ON t.id = e.tenant_id
    CROSS JOIN LATERAL (
        SELECT coalesce(
            jsonb_agg(jsonb_build_object(
                'item_id', item ->> 'item_id',
                'rank', CASE
                    WHEN item ->> 'rank' ~ '^[1-9][0-9]{0,8}$' THEN (item ->> 'rank')::integer
                    ELSE place END,
                'propensity',
                    CASE jsonb_typeof(item -> 'propensity') WHEN 'number' THEN item -> 'propensity' END,
                'logging_propensity',
                    CASE jsonb_typeof(item -> 'logging_propensity') WHEN 'number' THEN item -> 'logging_propensity' END,
                'target_propensity',
                    CASE jsonb_typeof(item -> 'target_propensity') WHEN 'number' THEN item -> 'target_propensity' END
            ) ORDER BY place),
            '[]'::jsonb) AS list
        FROM jsonb_array_elements(
            CASE jsonb_typeof(e.response -> 'items') WHEN 'array' THEN e.response -> 'items' END
        ) WITH ORDINALITY AS listed (item, place)
        WHERE item ->> 'item_id' <> ''
    ) items
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(key, value), '{}'::jsonb) AS pairs
        FROM jsonb_each_text(
            CASE jsonb_typeof(e.request -> 'context') WHEN 'object' THEN e.request -> 'context' END
        )
        WHERE value IS NOT NULL
    ) context;
    is_ours := pg_get_viewdef(to_regclass('recsys_exposures')) = pg_get_viewdef('ingest_v4_exposures'::regclass);
    DROP VIEW ingest_v4_exposures;
    IF is_ours IS NOT TRUE THEN
        RAISE NOTICE 'recsys_exposures is not the view that was made here, so it and experiment_assignments do not show posted assignments: these are in ingest_posted_assignments';
        RETURN;
    END IF;

    CREATE VIEW ingest_v4_assignments AS
    SELECT
        v.ts,
        v.tenant_id,
        v.tenant,
        v.surface,
        jsonb_build_object(
            'experiment_id', v.data #>> '{context,experiment_id}',
            'variant', v.data #>> '{context,experiment_variant}',
            'request_id', v.data -> 'request_id',
            'user_id', v.data -> 'user_id',
            'ts', v.data -> 'ts',
            'context', jsonb_build_object('tenant', v.tenant, 'surface', v.surface)
        ) AS data
    FROM recsys_exposures v
    WHERE v.data #>> '{context,experiment_id}' <> ''
      AND v.data #>> '{context,experiment_variant}' <> '';
    is_ours := pg_get_viewdef(to_regclass('experiment_assignments')) = pg_get_viewdef('ingest_v4_assignments'::regclass);
    DROP VIEW ingest_v4_assignments;

    -- As before; and its experiment is that of the assignments, if any was posted for
    -- its request. A posted one goes before the exposure's own in the same experiment.
    CREATE OR REPLACE VIEW recsys_exposures AS
    SELECT
        e.occurred_at AS ts,
        e.tenant_id,
        t.external_id AS tenant,
        e.surface,
        jsonb_strip_nulls(jsonb_build_object(
            'request_id', coalesce(e.meta ->> 'request_id', e.request_id::text),
            'user_id', coalesce(encode(e.user_key, 'hex'), nullif(e.session_id, ''), e.request_id::text),
            'ts', to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'items', items.list,
            'context', context.pairs || jsonb_strip_nulls(jsonb_build_object(
                -- slices are cut by `tenant`, the service itself writes `tenant_id`: say both
                'tenant', t.external_id,
                'tenant_id', t.external_id,
                'surface', e.surface,
                'segment', e.segment,
                'algo_version', e.algo_version,
                'config_version', e.config_etag,
                'rules_version', e.rules_etag,
                'experiment_id', coalesce(latest.experiment_id, e.experiment_id),
                'experiment_variant', coalesce(posted.variant, latest.variant, e.experiment_variant))),
            'latency_ms', CASE jsonb_typeof(e.meta -> 'latency_ms') WHEN 'number' THEN e.meta -> 'latency_ms' END,
            'error', CASE jsonb_typeof(e.meta -> 'error') WHEN 'boolean' THEN e.meta -> 'error' END
        )) AS data
    FROM exposure_events e
    JOIN tenants t ON t.id = e.tenant_id
    CROSS JOIN LATERAL (
        SELECT coalesce(
            jsonb_agg(jsonb_build_object(
                'item_id', item ->> 'item_id',
                'rank', CASE
                    WHEN item ->> 'rank' ~ '^[1-9][0-9]{0,8}$' THEN (item ->> 'rank')::integer
                    ELSE place END,
                'propensity',
                    CASE jsonb_typeof(item -> 'propensity') WHEN 'number' THEN item -> 'propensity' END,
                'logging_propensity',
                    CASE jsonb_typeof(item -> 'logging_propensity') WHEN 'number' THEN item -> 'logging_propensity' END,
                'target_propensity',
                    CASE jsonb_typeof(item -> 'target_propensity') WHEN 'number' THEN item -> 'target_propensity' END
            ) ORDER BY place),
            '[]'::jsonb) AS list
        FROM jsonb_array_elements(
            CASE jsonb_typeof(e.response -> 'items') WHEN 'array' THEN e.response -> 'items' END
        ) WITH ORDINALITY AS listed (item, place)
        WHERE item ->> 'item_id' <> ''
    ) items
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(key, value), '{}'::jsonb) AS pairs
        FROM jsonb_each_text(
            CASE jsonb_typeof(e.request -> 'context') WHEN 'object' THEN e.request -> 'context' END
        )
        WHERE value IS NOT NULL
    ) context
    -- The experiment that the exposure names itself.
    CROSS JOIN LATERAL (
        SELECT nullif(coalesce(e.experiment_id, e.request #>> '{context,experiment_id}'), '') AS experiment_id
    ) own
    LEFT JOIN ingest_posted_assignments posted
        ON posted.tenant_id = e.tenant_id
       AND posted.request_id = e.request_id
       AND posted.experiment_id = own.experiment_id
    -- For an exposure that names none: the last that was assigned, in any experiment.
    LEFT JOIN (
        SELECT a.tenant_id, a.request_id, a.experiment_id, a.variant
        FROM ingest_assignments a
        WHERE NOT EXISTS (
            SELECT FROM ingest_assignments later
            WHERE later.tenant_id = a.tenant_id
              AND later.request_id = a.request_id
              AND (later.occurred_at, later.event_id) > (a.occurred_at, a.event_id))
    ) latest
        ON latest.tenant_id = e.tenant_id
       AND latest.request_id = e.request_id
       AND own.experiment_id IS NULL;

    IF is_ours IS NOT TRUE THEN
        RAISE NOTICE 'experiment_assignments is not the view that was made here, so it does not show posted assignments: these are in ingest_posted_assignments';
        RETURN;
    END IF;

    -- Each request is there once for an experiment: as it was posted, or else as its
    -- first exposure says, which is the one that recsys-eval counts, too.
    CREATE OR REPLACE VIEW experiment_assignments AS
    SELECT
        a.occurred_at AS ts,
        a.tenant_id,
        t.external_id AS tenant,
        a.surface,
        jsonb_build_object(
            'experiment_id', a.experiment_id,
            'variant', a.variant,
            'request_id', coalesce(a.meta ->> 'request_id', a.request_id::text),
            'user_id', coalesce(encode(a.user_key, 'hex'), a.meta ->> 'request_id', a.request_id::text),
            'ts', to_char(a.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'context', context.pairs || jsonb_strip_nulls(jsonb_build_object(
                'tenant', t.external_id,
                'surface', a.surface))
        ) AS data
    FROM ingest_posted_assignments a
    JOIN tenants t ON t.id = a.tenant_id
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(key, value), '{}'::jsonb) AS pairs
        FROM jsonb_each_text(CASE jsonb_typeof(a.context) WHEN 'object' THEN a.context END)
        WHERE value IS NOT NULL
    ) context
    UNION ALL
    SELECT
        e.occurred_at,
        e.tenant_id,
        t.external_id,
        e.surface,
        jsonb_build_object(
            'experiment_id', own.experiment_id,
            'variant', own.variant,
            'request_id', coalesce(e.meta ->> 'request_id', e.request_id::text),
            'user_id', coalesce(encode(e.user_key, 'hex'), nullif(e.session_id, ''), e.request_id::text),
            'ts', to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'context', jsonb_build_object('tenant', t.external_id, 'surface', e.surface)
        )
    FROM exposure_events e
    JOIN tenants t ON t.id = e.tenant_id
    CROSS JOIN LATERAL (
        SELECT coalesce(e.experiment_id, e.request #>> '{context,experiment_id}') AS experiment_id,
               coalesce(e.experiment_variant, e.request #>> '{context,experiment_variant}') AS variant
    ) own
    WHERE own.experiment_id <> ''
      AND own.variant <> ''
      AND NOT EXISTS (
          SELECT FROM ingest_assignments posted
          WHERE posted.tenant_id = e.tenant_id
            AND posted.request_id = e.request_id
            AND posted.experiment_id = own.experiment_id)
      AND NOT EXISTS (
          SELECT FROM exposure_events first
          WHERE first.tenant_id = e.tenant_id
            AND first.request_id = e.request_id
            AND coalesce(first.experiment_id, first.request #>> '{context,experiment_id}') = own.experiment_id
            AND coalesce(first.experiment_variant, first.request #>> '{context,experiment_variant}') <> ''
            AND (first.occurred_at, first.event_id) < (e.occurred_at, e.event_id));
END
$$;
