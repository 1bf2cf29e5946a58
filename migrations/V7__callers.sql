-- Who may come in, and how much: what the suite's own tables of tenants and keys
-- have no place for. See docs/decisions/0014-callers.md.

-- Keys that are shipped in web pages and apps. They are kept apart from
-- tenant_api_keys, because recsys-service takes every row of that table for its
-- own routes, whatever its roles.
CREATE TABLE ingest_publish_keys (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id    uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    name         text,
    key_prefix   text,
    key_hash     text NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX ingest_publish_keys_tenant_idx ON ingest_publish_keys (tenant_id);
COMMENT ON TABLE ingest_publish_keys IS 'API keys that may post interactions of their tenant and nothing else';

-- Settings of a key of either table, by its id; no row means none.
CREATE TABLE ingest_key_settings (
    key_id     uuid PRIMARY KEY,
    settings   jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ingest_key_settings IS 'limits and origins of API keys, as keys grant writes them';

CREATE TABLE ingest_tenant_settings (
    tenant_id  uuid PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    settings   jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ingest_tenant_settings IS 'limits, origins, event names and surfaces of tenants, as tenants set writes them';
