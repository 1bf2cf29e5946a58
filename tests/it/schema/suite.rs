//! Promise: the suite's own readers find what they expect.

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::catalog::read_coverage;
use recsys_ingest::partitions::coverage::Coverage;
use recsys_ingest::partitions::create::ensure;
use recsys_ingest::partitions::range::Range;

use super::words::{TENANT, at, day};
use crate::harness::{Database, texts};

#[tokio::test]
async fn the_views_give_documents_that_the_evaluator_can_decode() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    for table in Table::OF_SUITE {
        ensure(&mut client, table, day("2026-03-10"), "test")
            .await
            .unwrap();
    }
    client
        .batch_execute(&format!(
            r#"INSERT INTO tenants (id, external_id, name) VALUES ('{TENANT}', 'demo', 'Demo');
            SET TimeZone = 'Asia/Kathmandu';
            INSERT INTO exposure_events VALUES
            ('{TENANT}', '2026-03-10 08:00:00.25+00', gen_random_uuid(), now(),
             '00000000-0000-4000-8000-0000000000aa', 'home', 'default', '\xabcd', 's1', 'exp', 'B', 'v7', 'c1', NULL,
             '{{"context": {{"locale": "de", "n": 3, "none": null}}}}',
             '{{"items": [{{"item_id": "a", "rank": 1, "propensity": 0.5, "score": 2}}, {{"item_id": "b", "rank": "x"}}, {{"item_id": ""}}, 7]}}',
             '{{"request_id": "req-1", "latency_ms": "slow", "error": true}}'),
            ('{TENANT}', '2026-03-10 09:00:00+00', gen_random_uuid(), now(),
             '00000000-0000-4000-8000-0000000000bb', 'home', 'default', NULL, '', NULL, NULL, 'v7', NULL, NULL,
             '[]', '{{"items": {{}}}}', NULL);
            INSERT INTO interaction_events VALUES
            ('{TENANT}', '2026-03-10 08:01:00+00', gen_random_uuid(), now(), '00000000-0000-4000-8000-0000000000aa',
             '\xabcd', NULL, 'home', NULL, 'purchase', 'a', 1, 19.90, '{{"request_id": "req-1"}}'),
            ('{TENANT}', '2026-03-10 08:02:00+00', gen_random_uuid(), now(), '00000000-0000-4000-8000-0000000000bb',
             NULL, 's2', NULL, NULL, 'click', 'b', NULL, NULL, NULL),
            ('{TENANT}', '2026-03-10 08:03:00+00', gen_random_uuid(), now(), NULL,
             NULL, 's2', NULL, NULL, 'click', 'b', NULL, NULL, NULL),
            ('{TENANT}', '2026-03-10 08:04:00+00', gen_random_uuid(), now(), '00000000-0000-4000-8000-0000000000bb',
             NULL, 's2', NULL, NULL, 'view', 'b', NULL, NULL, NULL)"#
        ))
        .await
        .unwrap();
    let documents = async |view: &str| -> Vec<serde_json::Value> {
        let rows = client
            .query(
                &format!("SELECT data FROM {view} WHERE tenant = 'demo' ORDER BY ts"),
                &[],
            )
            .await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(
        documents("recsys_exposures").await,
        [
            serde_json::json!({
                "request_id": "req-1", "user_id": "abcd", "ts": "2026-03-10T08:00:00.250000Z",
                "items": [{"item_id": "a", "rank": 1, "propensity": 0.5}, {"item_id": "b", "rank": 2}],
                "context": {
                    "locale": "de", "n": "3", "tenant": "demo", "tenant_id": "demo", "surface": "home",
                    "segment": "default", "algo_version": "v7", "config_version": "c1",
                    "experiment_id": "exp", "experiment_variant": "B"
                },
                "error": true
            }),
            serde_json::json!({
                "request_id": "00000000-0000-4000-8000-0000000000bb",
                "user_id": "00000000-0000-4000-8000-0000000000bb",
                "ts": "2026-03-10T09:00:00.000000Z",
                "items": [],
                "context": {
                    "tenant": "demo", "tenant_id": "demo", "surface": "home",
                    "segment": "default", "algo_version": "v7"
                }
            }),
        ]
    );
    assert_eq!(
        documents("recsys_outcomes").await,
        [
            serde_json::json!({
                "request_id": "req-1", "user_id": "abcd", "item_id": "a", "event_type": "conversion",
                "value": 19.9, "ts": "2026-03-10T08:01:00.000000Z"
            }),
            serde_json::json!({
                "request_id": "00000000-0000-4000-8000-0000000000bb", "user_id": "s2", "item_id": "b",
                "event_type": "click", "ts": "2026-03-10T08:02:00.000000Z"
            }),
        ]
    );
    assert_eq!(
        documents("experiment_assignments").await,
        [serde_json::json!({
            "experiment_id": "exp", "variant": "B", "request_id": "req-1", "user_id": "abcd",
            "ts": "2026-03-10T08:00:00.250000Z", "context": {"tenant": "demo", "surface": "home"}
        })]
    );
    let plan = texts(
        &client,
        "EXPLAIN SELECT data FROM recsys_exposures WHERE ts >= '2026-03-12' AND ts < '2026-03-13'",
    )
    .await;
    assert!(
        !plan.join("\n").contains("exposure_events_2026_03_10"),
        "{plan:#?}"
    );
}

#[tokio::test]
async fn the_monthly_helper_cuts_months_in_utc_beside_the_parent() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "SET TimeZone = 'America/Los_Angeles'; SET DateStyle = 'German'; CREATE SCHEMA other; SET search_path = other, public;
             SELECT ingest_ensure_monthly_partitions('public.exposure_events', '2026-11-30', 3);
             SELECT ingest_ensure_monthly_partitions('exposure_events', '2026-12-01', 2)",
        )
        .await
        .unwrap();
    assert_eq!(
        texts(&client, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'exposure_events'::regclass ORDER BY 1").await,
        ["exposure_events_2026_11", "exposure_events_2026_12", "exposure_events_2027_01"]
    );
    assert_eq!(
        read_coverage(&mut client, Table::Exposures).await.unwrap(),
        Coverage::of([Range {
            from_us: at("2026-11-01T00:00:00Z"),
            to_us: at("2027-02-01T00:00:00Z")
        }])
    );
    let refused = client
        .batch_execute(
            "SELECT ingest_ensure_monthly_partitions('exposure_events', '2026-11-30', 0)",
        )
        .await;
    refused.unwrap_err();
}
