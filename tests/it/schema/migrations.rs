//! Promise: from any database, and with any number of instances, migrations lead to one schema.

use std::time::Duration;

use recsys_ingest::postgres::migrate::{Report, migrate, migrate_within};

use super::words::TENANT;
use crate::harness::{Database, one, texts};

#[tokio::test]
async fn an_empty_database_gets_the_whole_schema_and_a_second_run_does_nothing() {
    let database = Database::empty().await;
    let mut client = database.connect().await;
    let report = migrate(&mut client).await.unwrap();
    assert_eq!(report.applied.len(), 15, "{report:?}");
    assert!(!report.is_adopted());
    let again = migrate(&mut client).await.unwrap();
    assert_eq!(
        again,
        Report {
            applied: vec![],
            adopted: vec![]
        }
    );

    let tables = texts(
        &client,
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p', 'v')
         AND relnamespace = 'public'::regnamespace ORDER BY relname",
    )
    .await;
    assert_eq!(
        tables,
        [
            "audit_log",
            "cache_invalidation_events",
            "experiment_assignments",
            "exposure_events",
            "exposures_for_pipelines",
            "ingest_assignments",
            "ingest_changed_days",
            "ingest_computed_days",
            "ingest_erased_subjects",
            "ingest_holders",
            "ingest_join_quality",
            "ingest_key_settings",
            "ingest_leases",
            "ingest_ledger",
            "ingest_log_readers",
            "ingest_partition_log",
            "ingest_posted_assignments",
            "ingest_publish_keys",
            "ingest_quarantine",
            "ingest_removed_rows",
            "ingest_retention",
            "ingest_schema_history",
            "ingest_tenant_settings",
            "interaction_events",
            "item_covisit_daily",
            "item_popularity_daily",
            "item_tags",
            "recsys_exposures",
            "recsys_outcomes",
            "tenant_api_keys",
            "tenant_config_versions",
            "tenant_configs_current",
            "tenant_rule_versions",
            "tenant_rules_current",
            "tenants",
        ]
    );
    let timeout: String = one(&client, "SHOW lock_timeout").await;
    assert_eq!(timeout, "0", "the session is left as it was");
    let locks: i64 = one(
        &client,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    )
    .await;
    assert_eq!(locks, 0);
}

#[tokio::test]
async fn the_event_tables_have_the_columns_in_the_order_of_a_row() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    let columns = |table: &str| {
        format!(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' !' ELSE '' END
             FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
        )
    };
    assert_eq!(
        texts(&client, &columns("exposure_events")).await,
        [
            "tenant_id uuid !",
            "occurred_at timestamp with time zone !",
            "event_id uuid !",
            "received_at timestamp with time zone !",
            "request_id uuid !",
            "surface text !",
            "segment text !",
            "user_key bytea",
            "session_id text",
            "experiment_id text",
            "experiment_variant text",
            "algo_version text !",
            "config_etag text",
            "rules_etag text",
            "request jsonb !",
            "response jsonb !",
            "meta jsonb",
        ]
    );
    assert_eq!(
        texts(&client, &columns("ingest_assignments")).await,
        [
            "tenant_id uuid !",
            "occurred_at timestamp with time zone !",
            "event_id uuid !",
            "received_at timestamp with time zone !",
            "request_id uuid !",
            "experiment_id text !",
            "variant text !",
            "user_key bytea",
            "surface text",
            "context jsonb",
            "meta jsonb",
        ]
    );
    assert_eq!(
        texts(&client, &columns("interaction_events")).await,
        [
            "tenant_id uuid !",
            "occurred_at timestamp with time zone !",
            "event_id uuid !",
            "received_at timestamp with time zone !",
            "request_id uuid",
            "user_key bytea",
            "session_id text",
            "surface text",
            "segment text",
            "event_type interaction_type !",
            "item_id text !",
            "position integer",
            "value numeric(18,6)",
            "meta jsonb",
        ]
    );
    let indexes: i64 =
        one(&client, "SELECT count(*) FROM pg_index WHERE indrelid IN ('exposure_events'::regclass, 'interaction_events'::regclass)").await;
    assert_eq!(indexes, 2, "the key and nothing else");
}

#[tokio::test]
async fn eight_instances_that_start_at_once_migrate_an_empty_database_once() {
    let database = Database::empty().await;
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = database.connect().await;
        runs.spawn(async move { migrate(&mut client).await });
    }
    let reports: Vec<Report> = runs
        .join_all()
        .await
        .into_iter()
        .map(|r| r.unwrap())
        .collect();
    assert_eq!(reports.iter().filter(|r| r.applied.len() == 15).count(), 1);
    assert_eq!(reports.iter().filter(|r| r.applied.is_empty()).count(), 7);
}

#[tokio::test]
async fn the_wait_for_another_migration_ends_and_names_who_holds_the_lock() {
    let database = Database::empty().await;
    let holder = database.connect().await;
    let key = i64::from_be_bytes(*b"ingestDB");
    holder
        .execute("SELECT pg_advisory_lock($1)", &[&key])
        .await
        .unwrap();
    let pid: i32 = one(&holder, "SELECT pg_backend_pid()").await;
    let mut client = database.connect().await;
    let error = migrate_within(&mut client, Duration::from_millis(250))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("backend {pid} (integration test)")),
        "{error}"
    );

    drop(holder);
    migrate(&mut client).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_with_advice() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "INSERT INTO ingest_schema_history (version, name, applied_on, checksum)
             SELECT 999, 'from_the_future', applied_on, '1' FROM ingest_schema_history WHERE version = 1",
        )
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error:?}");
    let locks: i64 = one(
        &client,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    )
    .await;
    assert_eq!(locks, 0, "a failure gives the lock back");
}

#[tokio::test]
async fn a_role_that_may_not_change_the_schema_is_told_so() {
    let database = Database::empty().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE ROLE weak; REVOKE CREATE ON SCHEMA public FROM PUBLIC; SET ROLE weak",
        )
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(
        error.to_string().contains("connect as the owner"),
        "{error:?}"
    );
}

#[tokio::test]
async fn configuration_versions_have_the_suites_etag_and_cannot_be_changed() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    client
        .batch_execute(&format!(
            "INSERT INTO tenants (id, external_id, name) VALUES ('{TENANT}', 'demo', 'Demo');
             INSERT INTO tenant_config_versions (tenant_id, config, created_by_sub)
             VALUES ('{TENANT}', '{{\"b\":  \"\\\\ü\", \"a\": 1}}', 'me')"
        ))
        .await
        .unwrap();
    let text: String = one(&client, "SELECT config::text FROM tenant_config_versions").await;
    let etag: String = one(&client, "SELECT etag FROM tenant_config_versions").await;
    assert_eq!(
        etag,
        hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()))
    );
    let refused = client
        .batch_execute("UPDATE tenant_config_versions SET comment = 'x'")
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000");
    client
        .batch_execute("UPDATE tenants SET updated_at = '2000-01-01', name = 'x'")
        .await
        .unwrap();
    let touched: bool = one(
        &client,
        "SELECT updated_at > now() - interval '1 minute' FROM tenants",
    )
    .await;
    assert!(touched);
}
