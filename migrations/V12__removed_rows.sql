-- Rows that were removed on purpose, and the time from which on rows are kept.
-- See docs/decisions/0025-retention.md.

-- An entry is written in the transaction that removes its rows. So the rows in a
-- table and those that were removed from it are always those that were stored.
CREATE TABLE ingest_removed_rows (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name   text NOT NULL,
    row_count    bigint,
    kind         text NOT NULL DEFAULT 'operator'
                 CHECK (kind IN ('retention', 'erasure', 'operator', 'accepted')),
    reason       text NOT NULL,
    actor        text NOT NULL
                 DEFAULT coalesce(nullif(current_setting('recsys_ingest.actor', true), ''), session_user),
    tenant_id    uuid,
    relation     text,
    relation_oid oid,
    range_from   timestamptz,
    range_to     timestamptz,
    removed_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (row_count IS NOT NULL OR relation_oid IS NOT NULL)
);
CREATE INDEX ingest_removed_rows_open_idx ON ingest_removed_rows (id) WHERE row_count IS NULL;
COMMENT ON TABLE ingest_removed_rows IS 'rows that were removed on purpose: how many, by whom and why; verify balances with them';
COMMENT ON COLUMN ingest_removed_rows.table_name IS 'an event table, ingest_quarantine, or ingest_ledger for rows that were lost before they were stored';
COMMENT ON COLUMN ingest_removed_rows.row_count IS 'rows with an event_id; below zero: rows that were there and had not been stored. NULL while the relation is being removed, and still counts';
COMMENT ON COLUMN ingest_removed_rows.relation_oid IS 'tells it from another table of that name';
COMMENT ON COLUMN ingest_removed_rows.relation IS 'the partition, or the table that it is once it is detached';

-- Partitions that end before this time are not made again. It only grows; removing
-- a row lets older events in once more.
CREATE TABLE ingest_retention (
    table_name text PRIMARY KEY,
    kept_from  timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ingest_retention IS 'the time from which on rows of a table are kept; older events are set aside';
