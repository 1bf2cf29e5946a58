-- What recsys-eval reads: one JSON document a row in `data`, its time in `ts`.
--
-- It decodes each document strictly and gives up at the first that does not fit,
-- so everything that a client could have sent in another type is checked here:
-- ranks are integers from 1, propensities and latencies numbers, context values
-- strings. There is no DISTINCT and no function around `ts`, so a predicate on
-- it still prunes partitions. A view that is already there is left alone.

DO $$
BEGIN
    IF to_regclass('recsys_exposures') IS NULL THEN
        CREATE VIEW recsys_exposures AS
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
    END IF;

    IF to_regclass('recsys_outcomes') IS NULL THEN
        -- A purchase is the one conversion that the suite knows; the other kinds
        -- of interaction have no form as an outcome.
        CREATE VIEW recsys_outcomes AS
        SELECT
            i.occurred_at AS ts,
            i.tenant_id,
            t.external_id AS tenant,
            i.surface,
            jsonb_strip_nulls(jsonb_build_object(
                'request_id', coalesce(i.meta ->> 'request_id', i.request_id::text),
                'user_id', coalesce(encode(i.user_key, 'hex'), nullif(i.session_id, ''), i.request_id::text),
                'item_id', i.item_id,
                'event_type', CASE i.event_type WHEN 'click' THEN 'click' ELSE 'conversion' END,
                'value', trim_scale(i.value),
                'ts', to_char(i.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            )) AS data
        FROM interaction_events i
        JOIN tenants t ON t.id = i.tenant_id
        WHERE i.event_type IN ('click', 'purchase') AND i.request_id IS NOT NULL;
    END IF;

    IF to_regclass('experiment_assignments') IS NULL THEN
        CREATE VIEW experiment_assignments AS
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
    END IF;
END
$$;
