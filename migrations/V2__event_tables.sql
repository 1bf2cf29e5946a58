-- The two event tables: ours where none is found, the suite's adopted where it is.
--
-- Ours differ from the suite's on purpose: one key that is identity, duplicate
-- check and tenant/time index at once; no sequence; no foreign key and no
-- secondary index that every hot row would pay for; and no default partition,
-- whose rows would block the making of the partition that they belong to.
--
-- An adopted table keeps all it has. It gains the two columns that we write,
-- nullable because its old rows have neither, and the unique index that makes
-- a replay harmless.

DO $$
BEGIN
    IF to_regclass('exposure_events') IS NULL THEN
        CREATE TABLE exposure_events (
            tenant_id          uuid NOT NULL,
            occurred_at        timestamptz NOT NULL,
            event_id           uuid NOT NULL,
            received_at        timestamptz NOT NULL,
            request_id         uuid NOT NULL,
            surface            text NOT NULL,
            segment            text NOT NULL,
            user_key           bytea,
            session_id         text,
            experiment_id      text,
            experiment_variant text,
            algo_version       text NOT NULL,
            config_etag        text,
            rules_etag         text,
            request            jsonb NOT NULL,
            response           jsonb NOT NULL,
            meta               jsonb,
            PRIMARY KEY (tenant_id, occurred_at, event_id)
        ) PARTITION BY RANGE (occurred_at);
        -- A server built without lz4 refuses the setting; pglz serves it as well, slower.
        BEGIN
            ALTER TABLE exposure_events
                ALTER COLUMN request SET COMPRESSION lz4,
                ALTER COLUMN response SET COMPRESSION lz4,
                ALTER COLUMN meta SET COMPRESSION lz4;
        EXCEPTION WHEN feature_not_supported THEN
            RAISE NOTICE 'this server has no lz4: exposure_events keeps its default compression';
        END;
    ELSE
        ALTER TABLE exposure_events
            ADD COLUMN IF NOT EXISTS event_id uuid,
            ADD COLUMN IF NOT EXISTS received_at timestamptz;
        CREATE UNIQUE INDEX exposure_events_ingest_key
            ON exposure_events (tenant_id, occurred_at, event_id);
    END IF;

    IF to_regclass('interaction_events') IS NULL THEN
        CREATE TABLE interaction_events (
            tenant_id   uuid NOT NULL,
            occurred_at timestamptz NOT NULL,
            event_id    uuid NOT NULL,
            received_at timestamptz NOT NULL,
            request_id  uuid,
            user_key    bytea,
            session_id  text,
            surface     text,
            segment     text,
            event_type  interaction_type NOT NULL,
            item_id     text NOT NULL,
            position    integer,
            value       numeric(18,6),
            meta        jsonb,
            PRIMARY KEY (tenant_id, occurred_at, event_id)
        ) PARTITION BY RANGE (occurred_at);
        BEGIN
            ALTER TABLE interaction_events ALTER COLUMN meta SET COMPRESSION lz4;
        EXCEPTION WHEN feature_not_supported THEN
            RAISE NOTICE 'this server has no lz4: interaction_events keeps its default compression';
        END;
    ELSE
        ALTER TABLE interaction_events
            ADD COLUMN IF NOT EXISTS event_id uuid,
            ADD COLUMN IF NOT EXISTS received_at timestamptz;
        CREATE UNIQUE INDEX interaction_events_ingest_key
            ON interaction_events (tenant_id, occurred_at, event_id);
    END IF;
END
$$;

-- The suite's helper for those who call it by hand or from a job. Unlike the
-- suite's own it reckons months in UTC whatever the session's time zone, puts
-- the child beside its parent, names it without the schema, and attaches it, so
-- that it never asks for more than SHARE UPDATE EXCLUSIVE on the parent.
-- An adopted database keeps the function that it has.
DO $$
BEGIN
    IF to_regprocedure('ensure_monthly_partitions(regclass, date, integer)') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE FUNCTION ensure_monthly_partitions(parent_table regclass, start_month date, months_ahead integer)
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
END
$$;
