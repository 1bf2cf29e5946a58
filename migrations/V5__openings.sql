-- Which opening of a spool may enter batches into the ledger. A spool's id is in
-- every copy of its directory: of several processes that have a copy open, the
-- one that opened last holds the rows, and the entries of the others change none.
-- See docs/decisions/0008-openings.md.

-- The nil lineage is the directory that a spool began in, and every copy of it
-- that was not made a spool by itself. A row without an opening is from before
-- this migration, or new.
ALTER TABLE ingest_ledger
    ADD COLUMN lineage   uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN opening   uuid,
    ADD COLUMN epoch     bigint NOT NULL DEFAULT 0,
    ADD COLUMN inherited bigint NOT NULL DEFAULT 0;
ALTER TABLE ingest_ledger DROP CONSTRAINT ingest_ledger_pkey;
ALTER TABLE ingest_ledger ADD PRIMARY KEY (instance_id, lineage, stream);
COMMENT ON COLUMN ingest_ledger.opening IS 'who may enter batches; all frames of its directory up to settled are settled';
COMMENT ON COLUMN ingest_ledger.inherited IS 'accepted rows that another lineage accounts for; below zero: rows of other copies that are in this account';

CREATE TABLE ingest_holders (
    instance_id uuid NOT NULL,
    lineage     uuid NOT NULL,
    epoch       bigint NOT NULL,
    opening     uuid NOT NULL,
    host        text NOT NULL,
    pid         bigint NOT NULL,
    directory   text NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance_id, lineage)
);
COMMENT ON TABLE ingest_holders IS 'which process holds the ledger rows of a spool: the one that opened a copy of it last';
