-- The suite's own names for what V1 once made under others, so that its migrations
-- find each index and trigger and add no second one. Where they have added one
-- already, ours goes. Tables that the suite made have these names and are left alone.

DO $$
DECLARE
    named record;
    ours  regclass;
    other regclass;
BEGIN
    FOR named IN SELECT * FROM (VALUES
        ('audit_log', 'audit_log_tenant_occurred_idx', 'audit_log_tenant_time_idx'),
        ('audit_log', 'audit_log_action_occurred_idx', 'audit_log_action_time_idx'),
        ('audit_log', 'audit_log_request_idx', 'audit_log_request_id_idx'),
        ('cache_invalidation_events', 'cache_invalidation_events_tenant_requested_idx', 'cache_invalidation_tenant_time_idx'),
        ('cache_invalidation_events', 'cache_invalidation_events_status_idx', 'cache_invalidation_status_idx'),
        ('item_tags', 'item_tags_tags_idx', 'item_tags_tags_gin'),
        ('item_tags', 'item_tags_namespace_created_idx', 'item_tags_tenant_ns_created_idx'),
        ('item_popularity_daily', 'item_popularity_daily_namespace_day_idx', 'item_popularity_daily_tenant_ns_day_idx'),
        ('item_popularity_daily', 'item_popularity_daily_item_day_idx', 'item_popularity_daily_tenant_item_day_idx'),
        ('item_covisit_daily', 'item_covisit_daily_item_day_idx', 'item_covisit_daily_tenant_item_day_idx'),
        ('item_covisit_daily', 'item_covisit_daily_neighbor_day_idx', 'item_covisit_daily_tenant_neighbor_day_idx'),
        ('tenant_api_keys', 'tenant_api_keys_live_idx', 'tenant_api_keys_active_idx'),
        ('tenant_config_versions', 'tenant_config_versions_config_idx', 'tenant_config_versions_config_gin'),
        ('tenant_rule_versions', 'tenant_rule_versions_rules_idx', 'tenant_rule_versions_rules_gin')
    ) AS n (on_table, was, is_now)
    LOOP
        SELECT i.indexrelid INTO ours FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = to_regclass(named.on_table) AND c.relname = named.was;
        CONTINUE WHEN ours IS NULL;
        SELECT i.indexrelid INTO other FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = to_regclass(named.on_table) AND c.relname = named.is_now;
        IF other IS NULL THEN
            EXECUTE format('ALTER INDEX %s RENAME TO %I', ours, named.is_now);
        ELSIF split_part(pg_get_indexdef(ours), ' USING ', 2) = split_part(pg_get_indexdef(other), ' USING ', 2) THEN
            EXECUTE format('DROP INDEX %s', ours);
        END IF;
    END LOOP;

    FOR named IN SELECT t.tgrelid::regclass AS on_table, t.tgname AS was, t.tgname || '_ud' AS is_now
        FROM pg_trigger t
        WHERE (t.tgrelid, t.tgname::text) IN (
            (to_regclass('audit_log'), 'audit_log_immutable'),
            (to_regclass('tenant_config_versions'), 'tenant_config_versions_immutable'),
            (to_regclass('tenant_rule_versions'), 'tenant_rule_versions_immutable'))
    LOOP
        IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = named.on_table AND t.tgname = named.is_now) THEN
            EXECUTE format('DROP TRIGGER %I ON %s', named.was, named.on_table);
        ELSE
            EXECUTE format('ALTER TRIGGER %I ON %s RENAME TO %I', named.was, named.on_table, named.is_now);
        END IF;
    END LOOP;
END
$$;

-- Until now V2 made a function under the name of the suite's helper, which the
-- suite's migrations replace. It goes, if it is still ours.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_proc p
        WHERE p.oid = to_regprocedure('ensure_monthly_partitions(regclass, date, integer)')
          AND p.proconfig @> ARRAY['TimeZone=UTC'] AND p.prosrc LIKE '%INCLUDING COMPRESSION%'
    ) THEN
        DROP FUNCTION ensure_monthly_partitions(regclass, date, integer);
    END IF;
END
$$;

-- Monthly partitions for those who make them by hand or from a job. Unlike the
-- suite's helper it reckons months in UTC whatever the session's time zone, puts
-- the child beside its parent, names it without the schema, and attaches it, so
-- that it never asks for more than SHARE UPDATE EXCLUSIVE on the parent.
CREATE FUNCTION ingest_ensure_monthly_partitions(parent_table regclass, start_month date, months_ahead integer)
    RETURNS void
    LANGUAGE plpgsql
    SET TimeZone = 'UTC'
    SET DateStyle = 'ISO'
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    schema_name text;
    table_name  text;
    child_name  text;
    first_day   date := date_trunc('month', start_month::timestamp)::date;
    month_start date;
    month_end   date;
BEGIN
    IF months_ahead IS NULL OR months_ahead < 1 THEN
        RAISE EXCEPTION 'months_ahead is %, it must be at least 1', months_ahead
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT n.nspname, c.relname INTO STRICT schema_name, table_name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = parent_table;

    FOR i IN 0 .. months_ahead - 1 LOOP
        month_start := (first_day + make_interval(months => i))::date;
        month_end := (first_day + make_interval(months => i + 1))::date;
        child_name := table_name || to_char(month_start, '_YYYY_MM');
        CONTINUE WHEN to_regclass(format('%I.%I', schema_name, child_name)) IS NOT NULL;
        EXECUTE format(
            'CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
            ' INCLUDING GENERATED INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION)',
            schema_name, child_name, table_name);
        EXECUTE format(
            'ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
            schema_name, table_name, child_name,
            month_start::timestamptz::text, month_end::timestamptz::text);
    END LOOP;
END
$body$;
