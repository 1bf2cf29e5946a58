-- Lists of recsys-pipelines may be counted from 0, and recsys-eval's ranks begin with 1. Until now the item
-- with rank 0 got its place, so that a list had two items with rank 1. In a list that has a rank 0
-- each rank is one more. exposure_events and exposures_for_pipelines keep what was sent.

-- A view that is not V9's is left alone: someone made it on purpose. Whether it is is asked of Postgres, which
-- prints equal views equally, so V9's stands here again.
DO $$
DECLARE
    is_ours boolean;
BEGIN
    CREATE VIEW ingest_v9_exposures AS
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
    is_ours := pg_get_viewdef(to_regclass('recsys_exposures')) = pg_get_viewdef('ingest_v9_exposures'::regclass);
    DROP VIEW ingest_v9_exposures;
    IF is_ours IS NOT TRUE THEN
        RAISE NOTICE 'recsys_exposures is not the view that was made here, so ranks in it are left as they are';
        RETURN;
    END IF;

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
                    -- of a list that is counted from 0
                    WHEN e.response -> 'items' @> '[{"rank": 0}]' AND item ->> 'rank' ~ '^(0|[1-9][0-9]{0,8})$'
                        THEN (item ->> 'rank')::integer + 1
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
END
$$;
