-- Users who were erased, and how writers notice. See docs/decisions/0026-erasure.md.

CREATE TABLE ingest_erased_subjects (
    tenant_id uuid NOT NULL,
    user_key  bytea NOT NULL,
    before    timestamptz NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_key)
);
COMMENT ON TABLE ingest_erased_subjects IS 'users who were erased: their events from before that time are stored no more, wherever they come from';

ALTER TABLE ingest_ledger ADD COLUMN erasures bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ingest_ledger.erasures IS 'grows with each erasure: a batch is entered only by a writer that has read ingest_erased_subjects since';
