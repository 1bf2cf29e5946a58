-- The second form of a row in quarantine: where the first, JSON, is refused for
-- what the row holds, the row is kept as the bytes that COPY reads, which no
-- encoding and no limit of jsonb can refuse.

ALTER TABLE ingest_quarantine ADD COLUMN row_bytes bytea;
COMMENT ON COLUMN ingest_quarantine.row_bytes IS 'the row as bytes, where it cannot be kept as JSON; `recsys-ingest quarantine show` reads either';
