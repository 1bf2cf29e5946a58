-- What the service keeps for itself: rows that Postgres refused, how many rows
-- each instance stored, and which partitions were made and why.

CREATE TABLE ingest_quarantine (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       uuid,
    table_name      text,
    event_id        uuid,
    occurred_at     timestamptz,
    received_at     timestamptz,
    quarantined_at  timestamptz DEFAULT now(),
    sqlstate        text,
    message         text,
    column_name     text,
    constraint_name text,
    row             jsonb
);
CREATE INDEX ingest_quarantine_tenant_time_idx ON ingest_quarantine (tenant_id, quarantined_at);
-- A batch that is stored twice (a replay, a retry) sets its bad rows aside once.
CREATE UNIQUE INDEX ingest_quarantine_event_key
    ON ingest_quarantine (table_name, tenant_id, occurred_at, event_id);
COMMENT ON TABLE ingest_quarantine IS 'events that were accepted but that the event table refused, one by one';

-- One row per instance and stream (a lane of its spool), updated in the
-- transaction that stores the rows, so that the counts, the rows and how far the
-- stream has come cannot disagree. Half-filled pages keep those updates within
-- the page (HOT), however often they come. What operators do to the quarantine
-- is counted under the nil instance.
CREATE TABLE ingest_ledger (
    instance_id uuid NOT NULL,
    stream      smallint NOT NULL,
    table_name  text NOT NULL,
    settled     bigint NOT NULL,
    stored      bigint NOT NULL DEFAULT 0,
    duplicates  bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    dropped     bigint NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance_id, stream)
) WITH (fillfactor = 50);
COMMENT ON TABLE ingest_ledger IS 'what became of accepted rows, by instance and stream, and the last frame of the stream that is settled';

CREATE TABLE ingest_partition_log (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name     text NOT NULL,
    partition_name text NOT NULL,
    action         text NOT NULL,
    range_from     timestamptz,
    range_to       timestamptz,
    at             timestamptz NOT NULL DEFAULT now(),
    instance       text,
    reason         text
);
COMMENT ON TABLE ingest_partition_log IS 'every partition that the service made or removed, when, and why';
