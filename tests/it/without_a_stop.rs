//! Promise: a database of the suite is adopted while it is in use, and no transaction of others
//! holds up the events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use recsys_ingest::postgres::migrate::migrate;
use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{Database, PEPPER, SOON, Service, click, eventually, key, one, texts};
use crate::schema::words::{TENANT, adopted, suite_made};

/// An adopted database with a key for the tests' client.
async fn adopted_with_key() -> Database {
    let (database, _) = adopted().await;
    let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
    let client = database.connect().await;
    let secret = key("demo", Role::Ingest);
    admin::keys::insert_key(&client, &hasher, "demo", None, &[Role::Ingest], &secret)
        .await
        .unwrap();
    database
}

/// Puts interactions into the DEFAULT partition: `rows` of them from an instant on, a second apart.
async fn fill(database: &Database, from: &str, rows: u32) {
    let sql = format!(
        "INSERT INTO interaction_events (tenant_id, occurred_at, event_type, item_id, session_id)
         SELECT '{TENANT}', '{from}'::timestamptz + n * interval '1 second', 'view', 'i' || n, 's'
           FROM generate_series(0, {rows} - 1) AS n"
    );
    database.execute(&sql).await;
}

fn at(id: &str, time: &str) -> Value {
    let mut event = click(id);
    event["occurred_at"] = json!(time);
    event
}

/// How many rows each partition of a table holds.
async fn places(database: &Database, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT tableoid::regclass || ' ' || count(*) FROM {table} GROUP BY tableoid ORDER BY 1"
    );
    texts(&database.connect().await, &sql).await
}

/// As `eventually`, for work of many steps.
async fn patiently(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < 8 * SOON, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_of_a_suite_database_holds_up_no_reader_and_needs_none_to_stop() {
    let database = suite_made().await;
    database
        .execute("CREATE TABLE exposure_events_2026_05 PARTITION OF exposure_events FOR VALUES FROM ('2026-05-01+00') TO ('2026-06-01+00')")
        .await;
    // An interrupted attempt left an index that is not valid.
    let client = database.connect().await;
    client
        .batch_execute(
            "ALTER TABLE interaction_events ADD COLUMN event_id uuid;
             CREATE UNIQUE INDEX interaction_events_ingest_key ON ONLY interaction_events (tenant_id, occurred_at, event_id)",
        )
        .await
        .unwrap();
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    for table in ["exposure_events", "interaction_events"] {
        let sql = format!("SELECT count(*) FROM {table}");
        reading.query_one(&sql, &[]).await.unwrap();
    }
    let mut migrator = database.connect().await;
    let migration = tokio::spawn(async move { migrate(&mut migrator).await });

    // A lock request that lasted would make these wait for the reader.
    let other = database.connect().await;
    other
        .batch_execute("SET lock_timeout = '1s'")
        .await
        .unwrap();
    for round in 0..100 {
        let sql = "SELECT count(*) FROM exposure_events JOIN interaction_events USING (tenant_id)";
        assert_eq!(one::<i64>(&other, sql).await, 4);
        let sql = format!(
            "INSERT INTO interaction_events (tenant_id, occurred_at, event_type, item_id)
             VALUES ('{TENANT}', '2020-01-01', 'view', '{round}'); DELETE FROM interaction_events WHERE item_id = '{round}'"
        );
        other.batch_execute(&sql).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!migration.is_finished(), "it waits for the reader to end");
    reading.commit().await.unwrap();
    let report = migration.await.unwrap().unwrap();
    assert!(report.is_adopted());
    let valid = "SELECT count(*) FILTER (WHERE i.indisvalid) || ' of ' || count(*) FROM pg_index i
                  WHERE i.indisunique AND pg_get_indexdef(i.indexrelid) LIKE '%(tenant_id, occurred_at, event_id)'
                    AND i.indrelid::regclass::text ~ '^(exposure|interaction)_events'";
    assert_eq!(one::<String>(&client, valid).await, "5 of 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_reader_of_the_default_partition_parks_no_lane() {
    let database = adopted_with_key().await;
    let service = Service::on(&database, |s| s.with("--writers", "1")).await;
    assert_eq!(
        service
            .interactions(&at("before", "2026-04-01T00:00:00Z"))
            .await
            .settled()
            .0,
        1
    );
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    reading
        .query("SELECT count(*) FROM interaction_events", &[])
        .await
        .unwrap();

    // The fixture has a row of that day in the default partition.
    for (id, time) in [
        ("default only", "2026-03-10T08:00:00Z"),
        ("a partition of its own", "2026-04-01T12:00:00Z"),
        ("again", "2026-03-10T09:00:00Z"),
    ] {
        let reply = service.interactions(&at(id, time)).await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{id}: {}", reply.text);
    }
    let again = service
        .interactions(&at("again", "2026-03-10T09:00:00Z"))
        .await;
    assert_eq!(again.settled(), (0, 1, 0, 0), "{}", again.text);
    assert_eq!(
        places(&database, "interaction_events").await,
        [
            "interaction_events_2026_04_01 2",
            "interaction_events_default 3"
        ]
    );
    reading.commit().await.unwrap();
    eventually("the rows to be moved into a partition", async || {
        places(&database, "interaction_events").await
            == [
                "interaction_events_2026_03_10 3",
                "interaction_events_2026_04_01 2",
            ]
    })
    .await;
    let again = service
        .interactions(&at("again", "2026-03-10T09:00:00Z"))
        .await;
    assert_eq!(again.settled(), (0, 1, 0, 0), "{}", again.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_default_partition_is_emptied_beside_the_traffic_and_each_row_is_seen_once() {
    let database = adopted_with_key().await;
    fill(&database, "2026-02-01 00:00:00+00", 15_000).await;
    fill(&database, "2026-02-03 00:00:00+00", 12_000).await;
    fill(&database, "2026-02-05 23:59:59+00", 2).await;
    // More than a scan under a lock may take.
    database
        .execute("INSERT INTO interaction_events (tenant_id, occurred_at, event_type, item_id, meta)
             SELECT '00000000-0000-4000-8000-000000000001', '2026-02-02'::timestamptz + n * interval '1 s', 'view', 'm', jsonb_build_object('x', repeat(md5(n::text), 40))
               FROM generate_series(1, 8000) AS n")
        .await;
    let expected = 1 + 15_000 + 12_000 + 2 + 8_000;
    assert_eq!(database.count("interaction_events").await, expected);
    let without_id = "interaction_events WHERE event_id IS NULL";
    assert_eq!(database.count(without_id).await, expected, "at first");
    let over = Arc::new(AtomicBool::new(false));
    let watching = {
        let (client, over) = (database.connect().await, Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let sql = "SELECT count(*) FROM interaction_events WHERE event_id IS NULL";
                assert_eq!(one::<i64>(&client, sql).await, expected);
            }
        })
    };
    let service = Service::on(&database, |s| s).await;
    let mut posted = 0;
    let mut left = i64::MAX;
    patiently("the default partition to be empty", async || {
        // Rows of ranges that are moved at that time wait aside for a moment.
        let event = at(&format!("e{posted}"), "2026-02-03T10:00:00Z");
        let reply = service.interactions(&event).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        posted += 1;
        left = database.count("interaction_events_default").await;
        left == 0
    })
    .await;
    over.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    patiently("what was set aside to be stored", async || {
        let stored = database
            .count("interaction_events WHERE event_id IS NOT NULL")
            .await;
        stored == i64::from(posted)
    })
    .await;
    assert_eq!(
        database.count("interaction_events").await - expected,
        i64::from(posted)
    );
    let strays = "SELECT count(*) FROM interaction_events WHERE tableoid::regclass::text
                  <> 'interaction_events_' || to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY_MM_DD')";
    assert_eq!(one::<i64>(&database.connect().await, strays).await, 0);
    let checks =
        "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'ingest\\_%' AND contype = 'c'
                   AND conrelid::regclass::text LIKE 'interaction\\_events%'";
    assert_eq!(one::<i64>(&database.connect().await, checks).await, 0);
    let order = texts(
        &database.connect().await,
        "SELECT partition_name FROM ingest_partition_log
          WHERE table_name = 'interaction_events' AND reason LIKE '%moved%' ORDER BY id",
    )
    .await;
    assert!(
        order.is_sorted_by(|a, b| a >= b),
        "the newest first: {order:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_on_as_they_were_cut_unless_an_interval_is_given() {
    let bounds = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = 'exposure_events'::regclass
                     AND pg_get_expr(c.relpartbound, c.oid) ~ 'FROM .''(2\\d{3}-\\d\\d-01) .* TO .''(2\\d{3}-\\d\\d-01) '";
    let days = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'exposure_events'::regclass AND c.relname ~ '_\\d{4}_\\d\\d_\\d\\d'";
    for (given, months, is_daily) in [(None, 4, false), (Some("day"), 1, true)] {
        let database = adopted_with_key().await;
        let client = database.connect().await;
        client
            .batch_execute(
                "SET TimeZone = 'UTC';
                 DO $$ DECLARE first timestamptz := date_trunc('month', now()); BEGIN
                 EXECUTE format('CREATE TABLE exposure_events_%s PARTITION OF exposure_events FOR VALUES FROM (%L) TO (%L)',
                     to_char(first, 'YYYY_MM'), first, first + interval '1 month'); END $$",
            )
            .await
            .unwrap();
        let _service = Service::on(&database, |s| match given {
            Some(interval) => s
                .with("--partition-interval", interval)
                .with("--partitions-ahead", "40"),
            None => s,
        })
        .await;
        client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        eventually("partitions ahead", async || {
            let daily = one::<i64>(&client, days).await > 0;
            one::<i64>(&client, bounds).await == months && daily == is_daily
        })
        .await;
    }
}
