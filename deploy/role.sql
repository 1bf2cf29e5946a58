-- What a role needs that only writes events, where another role owns the tables, migrates them
-- and makes their partitions. The role here is "ingest".
GRANT USAGE ON SCHEMA public TO ingest;
GRANT SELECT, INSERT ON exposure_events, interaction_events, ingest_assignments TO ingest;
GRANT SELECT, INSERT, UPDATE ON ingest_ledger, ingest_holders, ingest_changed_days TO ingest;
GRANT SELECT, INSERT, DELETE ON ingest_quarantine TO ingest;
GRANT SELECT ON ingest_retention, ingest_erased_subjects TO ingest;
GRANT SELECT, INSERT ON ingest_removed_rows TO ingest;
-- Only with a log that several writers read.
GRANT SELECT, INSERT, UPDATE, DELETE ON ingest_leases, ingest_log_readers TO ingest;
GRANT SELECT, INSERT ON ingest_partition_log TO ingest;
GRANT SELECT ON tenants, tenant_api_keys, ingest_schema_history TO ingest;
GRANT SELECT ON ingest_publish_keys, ingest_key_settings, ingest_tenant_settings TO ingest;
-- Without these two, nothing but last_used_at is missing.
GRANT UPDATE (last_used_at) ON tenant_api_keys TO ingest;
GRANT UPDATE (last_used_at) ON ingest_publish_keys TO ingest;
