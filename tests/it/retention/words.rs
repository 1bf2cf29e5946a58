//! What these tests share.

use std::time::Duration;

use recsys_ingest::accounts::retention::policy::Policy;
use recsys_ingest::accounts::verify::{TableCheck, count_tables};
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use recsys_ingest::partitions::create::ensure;
use tokio_postgres::Client;

use crate::harness::{Database, one, texts};
use crate::schema::words::{at, day};

/// Keeps interactions for this number of days.
pub fn keep(days: u64) -> Policy {
    let mut policy = Policy::default();
    policy.tables[Table::Interactions as usize] = Some(Duration::from_secs(days * 86_400));
    policy
}

pub fn time(text: &str) -> Micros {
    Micros(at(text))
}

/// `rows` interactions at noon of a day, counted in the ledger of some spool.
pub async fn store(client: &Client, date: &str, rows: i64) {
    let sql = format!(
        "WITH stored AS (
             INSERT INTO interaction_events
                 (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
             SELECT '00000000-0000-4000-8000-000000000001', '{date} 12:00:00+00',
                    gen_random_uuid(), now(), 'view', 'a' FROM generate_series(1, {rows})
             RETURNING 1)
         INSERT INTO ingest_ledger (instance_id, stream, table_name, settled, stored)
         SELECT gen_random_uuid(), 1, 'interaction_events', 0, count(*) FROM stored"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Partitions of four days with 1, 2, 3 and 4 rows.
pub async fn four_days(database: &Database) -> Client {
    let mut client = database.connect().await;
    for (rows, date) in (1..).zip(["2026-03-08", "2026-03-09", "2026-03-10", "2026-03-11"]) {
        ensure(&mut client, Table::Interactions, day(date), "test")
            .await
            .unwrap();
        store(&client, date, rows).await;
    }
    client
}

/// What of the accounts does not balance.
pub async fn differences(database: &Database) -> Vec<TableCheck> {
    let mut client = database.connect().await;
    let checks = count_tables(&mut client).await.unwrap();
    checks
        .into_iter()
        .filter(|check| check.missing() != 0)
        .collect()
}

/// The partitions of interactions, by name.
pub async fn names(client: &Client) -> Vec<String> {
    texts(
        client,
        "SELECT inhrelid::regclass::text FROM pg_inherits
          WHERE inhparent = 'interaction_events'::regclass AND NOT inhdetachpending ORDER BY 1",
    )
    .await
}

pub async fn has(client: &Client, relation: &str) -> bool {
    one(
        client,
        &format!("SELECT to_regclass('{relation}') IS NOT NULL"),
    )
    .await
}
