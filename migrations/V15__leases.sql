-- Which process reads which stream of a log that several read. See docs/decisions/0031-kafka.md.

CREATE TABLE ingest_leases (
    log_id uuid NOT NULL,
    stream smallint NOT NULL,
    reader uuid NOT NULL,
    host   text NOT NULL,
    pid    bigint NOT NULL,
    until  timestamptz NOT NULL,
    PRIMARY KEY (log_id, stream)
);
COMMENT ON TABLE ingest_leases IS 'which process reads a stream of a shared log, until when; what keeps rows exact is ingest_ledger';

CREATE TABLE ingest_log_readers (
    log_id uuid NOT NULL,
    reader uuid NOT NULL,
    host   text NOT NULL,
    pid    bigint NOT NULL,
    until  timestamptz NOT NULL,
    PRIMARY KEY (log_id, reader)
);
COMMENT ON TABLE ingest_log_readers IS 'the processes that share the streams of a log';

ALTER TABLE ingest_holders ADD COLUMN is_shared boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ingest_holders.is_shared IS 'a log that several read: its rows in ingest_ledger say where to read on, so they are kept however long nothing comes';
