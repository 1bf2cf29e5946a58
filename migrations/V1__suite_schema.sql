-- The suite's tables apart from the two event tables: tenants, versioned
-- configuration, audit, item signals and API keys.
--
-- Each table is made with its indexes and triggers as one unit, and only where
-- no table of that name is found. On a database that the suite's own migrations
-- built, this file therefore changes nothing. Indexes and triggers have the
-- suite's names, so that its migrations, should they run later, find each of them
-- and add no second one. Needs no extension.

DO $$
BEGIN
    IF to_regtype('tenant_status') IS NULL THEN
        CREATE TYPE tenant_status AS ENUM ('active', 'suspended', 'deleted');
    END IF;
    IF to_regtype('api_client_status') IS NULL THEN
        CREATE TYPE api_client_status AS ENUM ('active', 'revoked');
    END IF;
    IF to_regtype('cache_invalidation_status') IS NULL THEN
        CREATE TYPE cache_invalidation_status AS ENUM ('requested', 'applied', 'failed');
    END IF;
    IF to_regtype('interaction_type') IS NULL THEN
        CREATE TYPE interaction_type AS ENUM ('impression', 'click', 'add_to_cart', 'purchase', 'view');
    END IF;
END
$$;

DO $$
BEGIN
    IF to_regproc('set_updated_at') IS NULL THEN
        CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END
        $body$;
    END IF;
    IF to_regproc('prevent_update_delete') IS NULL THEN
        CREATE FUNCTION prevent_update_delete() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            RAISE EXCEPTION '% on % refused: its rows are immutable', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'feature_not_supported';
        END
        $body$;
    END IF;
END
$$;

-- hex(sha256(text of the document)). convert_to() is only marked STABLE, because
-- the database could in theory redefine a conversion; a generated column wants
-- IMMUTABLE, and with the encoding of a database fixed at its creation it is.
-- The body is parsed now, so that no search_path can change what it calls.
CREATE FUNCTION ingest_json_etag(document jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN encode(sha256(convert_to(document::text, 'UTF8')), 'hex');

DO $$
BEGIN
    IF to_regclass('tenants') IS NULL THEN
        CREATE TABLE tenants (
            id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            external_id text NOT NULL UNIQUE,
            name        text NOT NULL,
            status      tenant_status NOT NULL DEFAULT 'active',
            created_at  timestamptz NOT NULL DEFAULT now(),
            updated_at  timestamptz NOT NULL DEFAULT now()
        );
        CREATE TRIGGER tenants_set_updated_at BEFORE UPDATE ON tenants
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    END IF;

    IF to_regclass('tenant_config_versions') IS NULL THEN
        CREATE TABLE tenant_config_versions (
            id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            tenant_id      uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            config         jsonb NOT NULL,
            etag           text GENERATED ALWAYS AS (ingest_json_etag(config)) STORED,
            created_at     timestamptz NOT NULL DEFAULT now(),
            created_by_sub text NOT NULL,
            comment        text,
            UNIQUE (tenant_id, etag)
        );
        CREATE INDEX tenant_config_versions_tenant_created_idx
            ON tenant_config_versions (tenant_id, created_at DESC);
        CREATE INDEX tenant_config_versions_config_gin ON tenant_config_versions USING gin (config);
        CREATE TRIGGER tenant_config_versions_immutable_ud BEFORE UPDATE OR DELETE ON tenant_config_versions
            FOR EACH ROW EXECUTE FUNCTION prevent_update_delete();
    END IF;

    IF to_regclass('tenant_rule_versions') IS NULL THEN
        CREATE TABLE tenant_rule_versions (
            id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            tenant_id      uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            rules          jsonb NOT NULL,
            etag           text GENERATED ALWAYS AS (ingest_json_etag(rules)) STORED,
            created_at     timestamptz NOT NULL DEFAULT now(),
            created_by_sub text NOT NULL,
            comment        text,
            UNIQUE (tenant_id, etag)
        );
        CREATE INDEX tenant_rule_versions_tenant_created_idx
            ON tenant_rule_versions (tenant_id, created_at DESC);
        CREATE INDEX tenant_rule_versions_rules_gin ON tenant_rule_versions USING gin (rules);
        CREATE TRIGGER tenant_rule_versions_immutable_ud BEFORE UPDATE OR DELETE ON tenant_rule_versions
            FOR EACH ROW EXECUTE FUNCTION prevent_update_delete();
    END IF;

    IF to_regclass('tenant_configs_current') IS NULL THEN
        CREATE TABLE tenant_configs_current (
            tenant_id         uuid PRIMARY KEY REFERENCES tenants (id) ON DELETE RESTRICT,
            config_version_id uuid NOT NULL REFERENCES tenant_config_versions (id) ON DELETE RESTRICT,
            updated_at        timestamptz NOT NULL DEFAULT now(),
            updated_by_sub    text NOT NULL
        );
        CREATE TRIGGER tenant_configs_current_set_updated_at BEFORE UPDATE ON tenant_configs_current
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    END IF;

    IF to_regclass('tenant_rules_current') IS NULL THEN
        CREATE TABLE tenant_rules_current (
            tenant_id        uuid PRIMARY KEY REFERENCES tenants (id) ON DELETE RESTRICT,
            rules_version_id uuid NOT NULL REFERENCES tenant_rule_versions (id) ON DELETE RESTRICT,
            updated_at       timestamptz NOT NULL DEFAULT now(),
            updated_by_sub   text NOT NULL
        );
        CREATE TRIGGER tenant_rules_current_set_updated_at BEFORE UPDATE ON tenant_rules_current
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    END IF;

    IF to_regclass('audit_log') IS NULL THEN
        CREATE TABLE audit_log (
            id           bigserial PRIMARY KEY,
            occurred_at  timestamptz NOT NULL DEFAULT now(),
            tenant_id    uuid REFERENCES tenants (id) ON DELETE SET NULL,
            actor_sub    text NOT NULL,
            actor_type   text NOT NULL,
            action       text NOT NULL,
            entity_type  text,
            entity_id    text,
            request_id   uuid,
            ip           inet,
            user_agent   text,
            before_state jsonb,
            after_state  jsonb,
            extra        jsonb
        );
        CREATE INDEX audit_log_tenant_time_idx ON audit_log (tenant_id, occurred_at DESC);
        CREATE INDEX audit_log_action_time_idx ON audit_log (action, occurred_at DESC);
        CREATE INDEX audit_log_request_id_idx ON audit_log (request_id);
        CREATE TRIGGER audit_log_immutable_ud BEFORE UPDATE OR DELETE ON audit_log
            FOR EACH ROW EXECUTE FUNCTION prevent_update_delete();
    END IF;

    IF to_regclass('cache_invalidation_events') IS NULL THEN
        CREATE TABLE cache_invalidation_events (
            id               bigserial PRIMARY KEY,
            tenant_id        uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            request_id       uuid,
            requested_at     timestamptz NOT NULL DEFAULT now(),
            requested_by_sub text NOT NULL,
            targets          text[] NOT NULL,
            surface          text,
            status           cache_invalidation_status NOT NULL DEFAULT 'requested',
            applied_at       timestamptz,
            applied_by       text,
            error_detail     text
        );
        CREATE INDEX cache_invalidation_tenant_time_idx
            ON cache_invalidation_events (tenant_id, requested_at DESC);
        CREATE INDEX cache_invalidation_status_idx ON cache_invalidation_events (status);
    END IF;

    IF to_regclass('item_tags') IS NULL THEN
        CREATE TABLE item_tags (
            tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            namespace  text NOT NULL DEFAULT 'default',
            item_id    text NOT NULL,
            tags       text[] NOT NULL DEFAULT '{}',
            price      numeric(18,6),
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, namespace, item_id)
        );
        CREATE INDEX item_tags_tags_gin ON item_tags USING gin (tags);
        CREATE INDEX item_tags_tenant_ns_created_idx ON item_tags (tenant_id, namespace, created_at DESC);
        CREATE TRIGGER item_tags_set_updated_at BEFORE UPDATE ON item_tags
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    END IF;

    IF to_regclass('item_popularity_daily') IS NULL THEN
        CREATE TABLE item_popularity_daily (
            tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            namespace  text NOT NULL DEFAULT 'default',
            item_id    text NOT NULL,
            day        date NOT NULL,
            score      numeric(18,6) NOT NULL DEFAULT 0,
            updated_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, namespace, item_id, day)
        );
        CREATE INDEX item_popularity_daily_tenant_ns_day_idx
            ON item_popularity_daily (tenant_id, namespace, day DESC);
        CREATE INDEX item_popularity_daily_tenant_item_day_idx
            ON item_popularity_daily (tenant_id, item_id, day DESC);
        CREATE TRIGGER item_popularity_daily_set_updated_at BEFORE UPDATE ON item_popularity_daily
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    END IF;

    IF to_regclass('item_covisit_daily') IS NULL THEN
        CREATE TABLE item_covisit_daily (
            tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            namespace   text NOT NULL DEFAULT 'default',
            item_id     text NOT NULL,
            neighbor_id text NOT NULL,
            day         date NOT NULL,
            score       numeric(18,6) NOT NULL DEFAULT 0,
            updated_at  timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, namespace, item_id, neighbor_id, day)
        );
        CREATE INDEX item_covisit_daily_tenant_item_day_idx
            ON item_covisit_daily (tenant_id, namespace, item_id, day DESC);
        CREATE INDEX item_covisit_daily_tenant_neighbor_day_idx
            ON item_covisit_daily (tenant_id, namespace, neighbor_id, day DESC);
        CREATE TRIGGER item_covisit_daily_set_updated_at BEFORE UPDATE ON item_covisit_daily
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    END IF;

    IF to_regclass('tenant_api_keys') IS NULL THEN
        CREATE TABLE tenant_api_keys (
            id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            tenant_id    uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            name         text,
            key_prefix   text,
            key_hash     text NOT NULL UNIQUE,
            roles        text[] NOT NULL DEFAULT '{}',
            created_at   timestamptz NOT NULL DEFAULT now(),
            expires_at   timestamptz,
            revoked_at   timestamptz,
            last_used_at timestamptz
        );
        CREATE INDEX tenant_api_keys_tenant_idx ON tenant_api_keys (tenant_id);
        CREATE INDEX tenant_api_keys_active_idx ON tenant_api_keys (tenant_id) WHERE revoked_at IS NULL;
    END IF;
END
$$;
