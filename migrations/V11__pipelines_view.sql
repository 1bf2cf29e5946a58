-- What recsys-pipelines reads: `raw_source.postgres.exposure_table` may name this view instead of the table.
--
-- One row that it cannot decode ends its run of a day, so what it reads is made here of what is
-- stored: a session in each row, the request itself where there is none (a constant would merge all
-- such requests into one session), and each list with the two members that a run uses, without items
-- that have no id. Rows that other programs or earlier versions wrote cannot end a run either.
--
-- There is no DISTINCT and no function around `tenant_id`, `surface` or `occurred_at`, so predicates
-- on them still prune partitions and use the key. A view that is already there is left alone.

DO $$
BEGIN
    IF to_regclass('exposures_for_pipelines') IS NULL THEN
        CREATE VIEW exposures_for_pipelines AS
        SELECT
            e.tenant_id,
            e.occurred_at,
            e.request_id,
            e.surface,
            e.segment,
            e.user_key,
            CASE WHEN e.session_id ~ '\S' THEN e.session_id ELSE e.request_id::text END AS session_id,
            e.experiment_id,
            e.experiment_variant,
            e.algo_version,
            e.config_etag,
            e.rules_etag,
            e.request,
            jsonb_build_object('items', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'item_id', item ->> 'item_id',
                    -- Ranks are integers from 0 there.
                    'rank', CASE
                        WHEN item ->> 'rank' ~ '^(0|[1-9][0-9]{0,17})$' THEN (item ->> 'rank')::bigint
                        ELSE place END
                ) ORDER BY place)
                FROM jsonb_array_elements(
                    CASE jsonb_typeof(e.response -> 'items') WHEN 'array' THEN e.response -> 'items' END
                ) WITH ORDINALITY AS listed (item, place)
                WHERE item ->> 'item_id' ~ '\S'
            ), '[]'::jsonb)) AS response,
            e.meta
        FROM exposure_events e;
    END IF;
END
$$;
