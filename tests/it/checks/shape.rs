//! Encoding, tables and columns.

use recsys_ingest::accounts::doctor::diagnosis::Diagnosis;
use recsys_ingest::finding::{Finding, Severity};
use recsys_ingest::postgres::checks::inspect;

use super::{findings, is_ready, is_stored, refusal, says};
use crate::harness::{Database, Process, Settings, click, shown};
use crate::schema::words::adopted;

const ENOUGH: u32 = 7;

/// Drops the views: PostgreSQL does not change the type of a column that a view uses.
const NO_VIEWS: &str = "DROP VIEW IF EXISTS recsys_exposures, recsys_outcomes, experiment_assignments, exposures_for_pipelines CASCADE";

async fn inspected(database: &Database) -> Vec<Finding> {
    inspect(&database.connect().await, ENOUGH).await.unwrap()
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused_at_the_start() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = Database::in_encoding(encoding).await;
        let mut process = Process::run(Settings::new(&database).arguments());
        let status = process.wait();
        let log = process.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let sentence = format!("has the encoding {encoding}, not UTF8");
        assert!(log.contains(&sentence), "{log}");
    }
}

#[tokio::test]
async fn a_fresh_and_an_adopted_database_have_nothing_to_mend() {
    assert_eq!(inspected(&Database::with_tenants().await).await, []);
    let (database, _) = adopted().await;
    assert_eq!(inspected(&database).await, []);
}

#[tokio::test]
async fn everything_that_rows_would_meet_is_named_with_table_column_and_type() {
    use Severity::{Degraded, Fault};
    let interactions = "ALTER TABLE interaction_events";
    let exposures = "ALTER TABLE exposure_events";
    for (sql, severity, code, seen) in [
        (
            format!("{interactions} ALTER position TYPE bigint"),
            Fault,
            "column_type",
            "interaction_events.position is bigint, it has to be integer",
        ),
        (
            format!("{interactions} ALTER position TYPE smallint"),
            Fault,
            "column_type",
            "interaction_events.position is smallint, it has to be integer",
        ),
        (
            format!("{exposures} ALTER request TYPE json USING request::json"),
            Fault,
            "column_type",
            "exposure_events.request is json, it has to be jsonb",
        ),
        (
            format!("{exposures} ALTER received_at TYPE timestamp"),
            Fault,
            "column_type",
            "exposure_events.received_at is timestamp without time zone, it has to be timestamp with time zone",
        ),
        (
            format!("{exposures} ALTER request_id TYPE text"),
            Fault,
            "column_type",
            "exposure_events.request_id is text, it has to be uuid",
        ),
        (
            format!("{interactions} ALTER value TYPE double precision"),
            Fault,
            "column_type",
            "interaction_events.value is double precision, it has to be numeric(18,6)",
        ),
        (
            format!("{interactions} ALTER value TYPE numeric(18,2)"),
            Degraded,
            "column_limit",
            "interaction_events.value is numeric(18,2), it should be numeric(18,6)",
        ),
        (
            format!("{interactions} ALTER value TYPE numeric(10,6)"),
            Degraded,
            "column_limit",
            "interaction_events.value is numeric(10,6), it should be numeric(18,6)",
        ),
        (
            format!("{interactions} ALTER item_id TYPE varchar(20)"),
            Degraded,
            "column_limit",
            "interaction_events.item_id is character varying(20), it should be text",
        ),
        (
            format!("{interactions} DROP COLUMN surface"),
            Fault,
            "column_missing",
            "interaction_events has no column surface",
        ),
        (
            format!("{interactions} RENAME item_id TO item"),
            Fault,
            "column_missing",
            "interaction_events has no column item_id",
        ),
        (
            format!("{interactions} ADD COLUMN shop text NOT NULL"),
            Fault,
            "column_not_written",
            "interaction_events.shop is NOT NULL and has no default",
        ),
        (
            format!("{interactions} ALTER user_key SET NOT NULL"),
            Degraded,
            "column_not_null",
            "interaction_events.user_key is NOT NULL",
        ),
        (
            format!(
                "{interactions} DROP COLUMN surface; {interactions} ADD COLUMN surface text GENERATED ALWAYS AS ('x') STORED"
            ),
            Fault,
            "column_generated",
            "interaction_events.surface is a generated column",
        ),
        (
            "CREATE TYPE few AS ENUM ('click', 'view', 'impression', 'purchase');
             ALTER TABLE interaction_events ALTER event_type TYPE few USING event_type::text::few"
                .to_owned(),
            Degraded,
            "enum_label_missing",
            "interaction_events.event_type is the enum few, without add_to_cart",
        ),
        (
            format!("{interactions} DROP CONSTRAINT interaction_events_pkey"),
            Fault,
            "key_missing",
            "interaction_events has no valid unique index on (tenant_id, occurred_at, event_id)",
        ),
        (
            "DROP TABLE interaction_events".to_owned(),
            Fault,
            "table_missing",
            "there is no table interaction_events",
        ),
        (
            "ALTER TABLE ingest_ledger RENAME TO ledger".to_owned(),
            Fault,
            "table_missing",
            "there is no table ingest_ledger",
        ),
        (
            "CREATE SCHEMA app; ALTER TABLE exposure_events SET SCHEMA app".to_owned(),
            Fault,
            "table_missing",
            "exposure_events is in app, which is not on the search_path of the role postgres",
        ),
        (
            "CREATE TABLE plain (LIKE exposure_events INCLUDING ALL); DROP TABLE exposure_events;
             ALTER TABLE plain RENAME TO exposure_events"
                .to_owned(),
            Fault,
            "table_not_partitioned",
            "exposure_events is a plain table",
        ),
    ] {
        let database = Database::with_tenants().await;
        database.execute(NO_VIEWS).await;
        database.execute(&sql).await;
        let found = inspected(&database).await;
        let is_it = |finding: &&Finding| finding.seen == seen;
        let Some(finding) = found.iter().find(is_it) else {
            panic!("{sql}: {found:?}");
        };
        assert_eq!((finding.severity, finding.code), (severity, code), "{sql}");
        // A renamed column is reported as missing and as an extra column.
        assert!(
            found.len() == 1 || sql.contains("RENAME item_id"),
            "{sql}: {found:?}"
        );
        // A table that is not what it has to be is for a person; the SQL of all else mends it.
        if code.starts_with("table_") {
            continue;
        }
        for finding in found {
            let statements = Diagnosis::from(finding).mend.sql();
            assert!(!statements.is_empty(), "{sql}");
            for statement in statements {
                database.execute(&statement).await;
            }
        }
        assert_eq!(inspected(&database).await, [], "{sql}");
    }
}

#[tokio::test]
async fn columns_that_hold_at_least_as_much_are_no_finding() {
    let database = Database::with_tenants().await;
    database.execute(NO_VIEWS).await;
    database
        .execute(
            "CREATE DOMAIN label AS text CHECK (value <> ''); CREATE DOMAIN short AS varchar;
             ALTER TABLE interaction_events ALTER surface TYPE label, ALTER segment TYPE short,
                 ALTER session_id TYPE varchar, ALTER value TYPE numeric,
                 ALTER event_type TYPE text USING event_type::text,
                 ADD COLUMN id bigserial NOT NULL, ADD COLUMN note text,
                 ADD COLUMN at timestamptz NOT NULL DEFAULT now(),
                 ADD COLUMN twice integer GENERATED ALWAYS AS (position * 2) STORED;
             ALTER TABLE exposure_events ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY",
        )
        .await;
    assert_eq!(inspected(&database).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_another_type_at_the_start_takes_no_event_until_it_is_mended() {
    let database = Database::with_tenants().await;
    database
        .execute("ALTER TABLE interaction_events ALTER position TYPE bigint")
        .await;
    let (process, client) = Process::listen(&Settings::new(&database));
    let sentence = "interaction_events.position is bigint, it has to be integer";
    says(&process, &client, "unready", sentence).await;
    let refused = refusal(&client, "/v1/interactions", &click("a")).await;
    assert!(refused.contains(sentence), "{refused}");
    let [finding] = &findings(&client, "column_type").await[..] else {
        panic!("{}", client.get("/readyz?verbose").await.text);
    };
    assert_eq!(finding["severity"], "fault");
    // The other table is not affected.
    let taken = client.post("/v1/exposures", &shown("a")).await;
    assert_eq!(taken.status, 200, "{}", taken.text);
    database
        .execute("ALTER TABLE interaction_events ALTER position TYPE integer")
        .await;
    is_ready(&process, &client).await;
    let stored = client.post("/v1/interactions", &click("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_under_a_running_service_is_named_and_costs_nothing() {
    let database = Database::with_tenants().await;
    let (process, client) = Process::listen(&Settings::new(&database));
    is_ready(&process, &client).await;
    database
        .execute("ALTER TABLE interaction_events ALTER position TYPE bigint")
        .await;
    let mut event = click("a");
    event["position"] = 3.into();
    let taken = client
        .query("ack=durable")
        .post("/v1/interactions", &event)
        .await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    let sentence = "interaction_events.position is bigint, it has to be integer";
    says(&process, &client, "degraded", sentence).await;
    let metrics = client.get("/metrics").await.text;
    let gauge = "recsys_ingest_findings{code=\"column_type\",severity=\"fault\"} 1";
    assert!(metrics.contains(gauge), "{metrics}");
    database
        .execute("ALTER TABLE interaction_events ALTER position TYPE integer")
        .await;
    is_ready(&process, &client).await;
    is_stored(&client, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_mended_is_noticed_though_no_connection_breaks() {
    let database = Database::with_tenants().await;
    database
        .execute("ALTER TABLE interaction_events ALTER user_key SET NOT NULL")
        .await;
    let settings = Settings::new(&database).with("--key-refresh", "1s");
    let (process, client) = Process::listen(&settings);
    let sentence = "interaction_events.user_key is NOT NULL";
    says(&process, &client, "degraded", sentence).await;
    let stored = client.post("/v1/exposures", &shown("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0), "{}", stored.text);
    database
        .execute("ALTER TABLE interaction_events ALTER user_key DROP NOT NULL")
        .await;
    is_ready(&process, &client).await;
}
