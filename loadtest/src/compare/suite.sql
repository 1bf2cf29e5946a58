-- The two event tables as the suite itself declares them, in a schema of their own.
-- Row by row they keep what recsys-ingest builds when a partition is sealed: the
-- foreign key, every secondary index and the GIN indexes. They get their rows where
-- the suite's own tables get them: in the default partition.

DROP SCHEMA IF EXISTS suite CASCADE;
CREATE SCHEMA suite;

CREATE TABLE suite.exposure_events (
    id                 bigserial NOT NULL,
    tenant_id          uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    occurred_at        timestamptz NOT NULL,
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
    PRIMARY KEY (occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE suite.exposure_events_default PARTITION OF suite.exposure_events DEFAULT;
CREATE INDEX ON suite.exposure_events (tenant_id, occurred_at DESC);
CREATE INDEX ON suite.exposure_events (tenant_id, request_id);
CREATE INDEX ON suite.exposure_events (tenant_id, surface, occurred_at DESC);
CREATE INDEX ON suite.exposure_events (tenant_id, user_key, occurred_at DESC)
    WHERE user_key IS NOT NULL;
CREATE INDEX ON suite.exposure_events USING gin (request);
CREATE INDEX ON suite.exposure_events USING gin (response);

CREATE TABLE suite.interaction_events (
    id          bigserial NOT NULL,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    occurred_at timestamptz NOT NULL,
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
    PRIMARY KEY (occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE suite.interaction_events_default PARTITION OF suite.interaction_events DEFAULT;
CREATE INDEX ON suite.interaction_events (tenant_id, occurred_at DESC);
CREATE INDEX ON suite.interaction_events (tenant_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX ON suite.interaction_events (tenant_id, user_key, occurred_at DESC)
    WHERE user_key IS NOT NULL;
CREATE INDEX ON suite.interaction_events (tenant_id, item_id, occurred_at DESC);
CREATE INDEX ON suite.interaction_events USING gin (meta);
