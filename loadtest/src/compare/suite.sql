-- The two event tables as the suite itself declares them. Row by row they keep what
-- recsys-ingest builds when a partition is sealed: the foreign key, every secondary index
-- and the GIN indexes. The suite's rows go into the default partitions. They need the type
-- interaction_type and the table tenants.

CREATE TABLE exposure_events (
    id bigserial NOT NULL,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE RESTRICT,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    request_id uuid NOT NULL,
    surface text NOT NULL,
    segment text NOT NULL,
    user_key bytea,
    session_id text,
    experiment_id text,
    experiment_variant text,
    algo_version text NOT NULL,
    config_etag text,
    rules_etag text,
    request jsonb NOT NULL,
    response jsonb NOT NULL,
    meta jsonb,
    PRIMARY KEY (occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE exposure_events_default PARTITION OF exposure_events DEFAULT;
CREATE INDEX ON exposure_events (tenant_id, occurred_at DESC);
CREATE INDEX ON exposure_events (tenant_id, request_id);
CREATE INDEX ON exposure_events (tenant_id, surface, occurred_at DESC);
CREATE INDEX ON exposure_events (tenant_id, user_key, occurred_at DESC) WHERE user_key IS NOT NULL;
CREATE INDEX ON exposure_events USING gin (request);
CREATE INDEX ON exposure_events USING gin (response);

CREATE TABLE interaction_events (
    id bigserial NOT NULL,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE RESTRICT,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    request_id uuid,
    user_key bytea,
    session_id text,
    surface text,
    segment text,
    event_type interaction_type NOT NULL,
    item_id text NOT NULL,
    position integer,
    value numeric(18,6),
    meta jsonb,
    PRIMARY KEY (occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE interaction_events_default PARTITION OF interaction_events DEFAULT;
CREATE INDEX ON interaction_events (tenant_id, occurred_at DESC);
CREATE INDEX ON interaction_events (tenant_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX ON interaction_events (tenant_id, user_key, occurred_at DESC) WHERE user_key IS NOT NULL;
CREATE INDEX ON interaction_events (tenant_id, item_id, occurred_at DESC);
CREATE INDEX ON interaction_events USING gin (meta);
