-- What a role needs that only computes signals and reports (`recsys-ingest signals`,
-- `recsys-ingest report`). The role here is "jobs". It writes no event.
GRANT USAGE ON SCHEMA public TO jobs;
GRANT SELECT ON exposure_events, interaction_events, tenants TO jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON item_popularity_daily, item_covisit_daily TO jobs;
GRANT SELECT, DELETE ON ingest_changed_days TO jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON ingest_computed_days TO jobs;
GRANT SELECT ON ingest_join_quality TO jobs;
-- Signals are put together in temporary tables. Databases grant this to all roles, unless it was
-- revoked: GRANT TEMPORARY ON DATABASE recsys TO jobs;
