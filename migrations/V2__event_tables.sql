-- The two event tables: ours where none is found, the suite's adopted where it is.
--
-- Ours differ from the suite's on purpose: one key that is identity, duplicate
-- check and tenant/time index at once; no sequence; no foreign key and no
-- secondary index that every hot row would pay for; and no default partition,
-- whose rows would block the making of the partition that they belong to.
--
-- An adopted table keeps all it has. It gains the two columns that we write,
-- nullable because its old rows have neither, and the unique index that makes
-- a replay harmless. The program makes both beforehand, without a lock that a
-- reader or writer would notice, and this file then finds them; what stands here
-- is for a table without partitions.

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
    ELSIF NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = to_regclass('exposure_events') AND i.indisunique AND i.indisvalid
          AND pg_get_indexdef(i.indexrelid) LIKE '%(tenant_id, occurred_at, event_id)'
    ) THEN
        ALTER TABLE exposure_events
            ADD COLUMN IF NOT EXISTS event_id uuid,
            ADD COLUMN IF NOT EXISTS received_at timestamptz;
        CREATE UNIQUE INDEX IF NOT EXISTS exposure_events_ingest_key
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
    ELSIF NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = to_regclass('interaction_events') AND i.indisunique AND i.indisvalid
          AND pg_get_indexdef(i.indexrelid) LIKE '%(tenant_id, occurred_at, event_id)'
    ) THEN
        ALTER TABLE interaction_events
            ADD COLUMN IF NOT EXISTS event_id uuid,
            ADD COLUMN IF NOT EXISTS received_at timestamptz;
        CREATE UNIQUE INDEX IF NOT EXISTS interaction_events_ingest_key
            ON interaction_events (tenant_id, occurred_at, event_id);
    END IF;
END
$$;
