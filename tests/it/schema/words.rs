//! Helpers for the tests of the schema.

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::catalog::list;
use recsys_ingest::partitions::range::{Interval, Range};
use recsys_ingest::postgres::migrate::{Report, migrate};
use tokio_postgres::Client;

use crate::harness::Database;

/// The tenant of the suite's fixture.
pub const TENANT: &str = "00000000-0000-4000-8000-000000000001";
const SUITE_SCHEMA: &str = include_str!("../fixtures/suite_schema.sql");
/// What the fixture includes: the load tester measures against the same tables.
const SUITE_TABLES: &str = include_str!("../../../loadtest/src/compare/suite.sql");
const INCLUDE: &str = r"\ir ../../../loadtest/src/compare/suite.sql";

/// A database that the suite created.
pub async fn suite_made() -> Database {
    let database = Database::empty().await;
    assert!(SUITE_SCHEMA.contains(INCLUDE));
    let schema = SUITE_SCHEMA.replace(INCLUDE, SUITE_TABLES);
    database.execute(&schema).await;
    database
}

/// A database that the suite created and the service's migrations have adopted.
pub async fn adopted() -> (Database, Report) {
    let database = suite_made().await;
    let mut client = database.connect().await;
    let report = migrate(&mut client).await.unwrap();
    (database, report)
}

pub fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

pub fn day(text: &str) -> Range {
    Interval::Day.range_of(at(&format!("{text}T12:00:00Z")))
}

pub async fn names(client: &mut Client, table: Table) -> Vec<String> {
    list(client, table)
        .await
        .unwrap()
        .into_iter()
        .map(|p| p.name)
        .collect()
}

pub const INTERACTION: &str = "INSERT INTO interaction_events
    (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
    VALUES ('00000000-0000-4000-8000-000000000001', $1::text::timestamptz, gen_random_uuid(), now(), 'view', 'a')";
