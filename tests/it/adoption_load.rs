//! Measurements, which print figures: a large database of the suite is adopted under load, and what
//! a row costs with the suite's migrations.
//!
//! `cargo test --release --test it adoption_load -- --ignored --nocapture --test-threads 1`;
//! `ADOPTION_MINUTES` (8) is how long readers hold transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use recsys_ingest::postgres::migrate::migrate;
use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::beside::SUITE_MIGRATIONS;
use crate::harness::{Database, PEPPER, Process, Service, Settings, click, key, one, texts};
use crate::schema::words::{TENANT, suite_made};

/// Rows in each of the two DEFAULT partitions, of today and the nine days before.
const ROWS: u32 = 500_000;

const FILL: [&str; 2] = [
    "INSERT INTO exposure_events (tenant_id, occurred_at, request_id, surface, segment, algo_version, request, response)
     SELECT '00000000-0000-4000-8000-000000000001', now() - n * interval '1.6 seconds', gen_random_uuid(), 'home', 'default', 'v1',
            '{\"context\": {\"device\": \"phone\"}}', '{\"items\": [{\"item_id\": \"a\", \"rank\": 1}, {\"item_id\": \"b\", \"rank\": 2}]}'
       FROM generate_series(1, $1::bigint) AS n",
    "INSERT INTO interaction_events (tenant_id, occurred_at, event_type, item_id, session_id)
     SELECT '00000000-0000-4000-8000-000000000001', now() - n * interval '1.6 seconds', 'view', 'i' || n % 5000, 's' || n % 9000
       FROM generate_series(1, $1::bigint) AS n",
];

/// The longest time that a statement took, by what it was.
#[derive(Default)]
struct Longest(std::sync::Mutex<BTreeMap<&'static str, Duration>>);

impl Longest {
    fn saw(&self, what: &'static str, since: Instant) {
        let mut longest = self.0.lock().unwrap();
        let longest = longest.entry(what).or_default();
        *longest = since.elapsed().max(*longest);
    }
}

/// Runs a statement every few milliseconds, and notes the longest.
async fn probe(
    database: Database,
    what: &'static str,
    sql: String,
    longest: Arc<Longest>,
    over: Arc<AtomicBool>,
) {
    let client = database.connect().await;
    while !over.load(Ordering::Relaxed) {
        let since = Instant::now();
        client.batch_execute(&sql).await.unwrap();
        longest.saw(what, since);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Reads both tables in transactions of 30 seconds, one after another.
async fn read_for_long(database: Database, over: Arc<AtomicBool>) {
    let mut client = database.connect().await;
    while !over.load(Ordering::Relaxed) {
        let reading = client.transaction().await.unwrap();
        let sql = "SELECT FROM exposure_events LIMIT 1; SELECT FROM interaction_events LIMIT 1";
        reading.batch_execute(sql).await.unwrap();
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(30) && !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        reading.commit().await.unwrap();
    }
}

async fn insert_key(database: &Database) {
    let client = database.connect().await;
    let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
    let secret = key("demo", Role::Ingest);
    admin::keys::insert_key(&client, &hasher, "demo", None, &[Role::Ingest], &secret)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of many minutes"]
#[expect(
    clippy::disallowed_methods,
    reason = "how long it takes is the caller's"
)]
async fn adoption_under_load() {
    let minutes = std::env::var("ADOPTION_MINUTES").map_or(8, |text| text.parse().unwrap());
    let database = suite_made().await;
    let client = database.connect().await;
    for sql in FILL {
        client.execute(sql, &[&i64::from(ROWS)]).await.unwrap();
    }
    client.batch_execute("VACUUM ANALYZE").await.unwrap();
    let count =
        "SELECT (SELECT count(*) FROM exposure_events) + (SELECT count(*) FROM interaction_events)";
    let before: i64 = one(&client, count).await;

    let (longest, over, readers_over) =
        <(Arc<Longest>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(read_for_long(database.clone(), Arc::clone(&readers_over)));
    for (what, sql) in [
        (
            "read of exposures",
            format!("SELECT FROM exposure_events WHERE tenant_id = '{TENANT}' LIMIT 1"),
        ),
        (
            "read of interactions",
            format!("SELECT FROM interaction_events WHERE tenant_id = '{TENANT}' LIMIT 1"),
        ),
        (
            "insert of others",
            format!(
                "INSERT INTO interaction_events (tenant_id, occurred_at, event_type, item_id) VALUES ('{TENANT}', now(), 'view', 'probe')"
            ),
        ),
    ] {
        tasks.spawn(probe(
            database.clone(),
            what,
            sql,
            Arc::clone(&longest),
            Arc::clone(&over),
        ));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let mut migrator = database.connect().await;
    migrate(&mut migrator).await.unwrap();
    println!("migrated in {:.1} s", begun.elapsed().as_secs_f32());
    insert_key(&database).await;

    let (process, service) = Process::serve(&Settings::new(&database));
    let mut posted = 0;
    let mut waited = 0;
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let settled_until = until + Duration::from_secs(600);
    let left = "SELECT coalesce(sum(n), 0)::bigint FROM (
                    SELECT count(*) AS n FROM exposure_events_default WHERE occurred_at < date_trunc('day', now(), 'UTC')
                     UNION ALL
                    SELECT count(*) FROM interaction_events_default WHERE occurred_at < date_trunc('day', now(), 'UTC')) AS t";
    loop {
        let events: Vec<Value> = (0..50)
            .map(|n| {
                let mut event = click(&format!("{posted}-{n}"));
                // Half of them are late by days.
                let at = jiff::Timestamp::now()
                    - jiff::SignedDuration::from_hours(i64::from(n % 2) * 24 * (posted % 9));
                event["occurred_at"] = json!(at.to_string());
                event
            })
            .collect();
        let since = Instant::now();
        let reply = service
            .post("/v1/interactions", &Value::Array(events))
            .await;
        longest.saw("post, until committed", since);
        assert_eq!(reply.status, 200, "{}", reply.text);
        waited += reply.json["quarantined"].as_array().map_or(0, Vec::len);
        posted += 1;
        if Instant::now() > until {
            readers_over.store(true, Ordering::Relaxed);
            if one::<i64>(&client, left).await == 0 || Instant::now() > settled_until {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    over.store(true, Ordering::Relaxed);
    while tasks.join_next().await.is_some() {}
    tokio::time::sleep(Duration::from_secs(15)).await;
    let probes: i64 = one(
        &client,
        "SELECT count(*) FROM interaction_events WHERE item_id = 'probe'",
    )
    .await;
    let ours: i64 = one(
        &client,
        "SELECT count(*) FROM interaction_events WHERE event_id IS NOT NULL",
    )
    .await;
    let after: i64 = one(&client, count).await;
    let aside = database.count("ingest_quarantine").await;
    println!(
        "rows before {before}, after without what came {}",
        after - ours - probes
    );
    println!(
        "events posted {}, stored {ours}, in quarantine {aside}; had to wait aside for a while {waited}",
        posted * 50
    );
    println!(
        "left in DEFAULT partitions of days that are over: {}",
        one::<i64>(&client, left).await
    );
    for (what, longest) in longest.0.lock().unwrap().iter() {
        println!("longest {what}: {:.0} ms", longest.as_secs_f64() * 1e3);
    }
    let log = "SELECT concat_ws(' ', to_char(at, 'HH24:MI:SS'), partition_name, reason) FROM ingest_partition_log ORDER BY id";
    for line in texts(&client, log).await {
        println!("{line}");
    }
    assert_eq!(after - ours - probes, before, "{}", process.log());
    assert_eq!(ours + aside, posted * 50);
}

/// CPU seconds of the sessions that a service keeps.
async fn cpu(database: &Database) -> f64 {
    let sql = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let pids = texts(&database.connect().await, sql).await;
    let ticks = pids.iter().filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
    });
    ticks.sum::<f64>() / 100.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cpu_beside_the_suite() {
    let database = Database::with_tenants().await;
    let mut round = 0;
    let mut measure = async |what: &str, lean: f64| {
        let service = Service::on(&database, |s| s.with("--partition-interval", "day")).await;
        round += 1;
        let mut before = 0.0;
        for body in 0..630 {
            if body == 30 {
                before = cpu(&database).await;
            }
            let events: Vec<Value> = (0..100)
                .map(|n| {
                    json!({
                        "event_id": format!("{round}-{body}-{n}"), "occurred_at": format!("2026-03-{:02}T08:00:00Z", round + 9),
                        "request_id": format!("r{round}-{body}-{n}"), "surface": "home", "user_id": format!("u{n}"),
                        "items": (1..=10).map(|rank| json!({"item_id": format!("i{}", rank * n), "rank": rank})).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let reply = service.exposures(&Value::Array(events)).await;
            assert_eq!(reply.settled().0, 100, "{}", reply.text);
        }
        let used = cpu(&database).await - before;
        let ratio = if lean > 0.0 { used / lean } else { 1.0 };
        println!(
            "{what}: {used:.2} s of PostgreSQL's CPU for 60,000 exposures, {ratio:.2} of the lean schema's"
        );
        service.stop().await.unwrap();
        used
    };
    let lean = measure("lean", 0.0).await;
    database.execute(SUITE_MIGRATIONS).await;
    measure("after the suite's migrations", lean).await;
    let removing = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(["adopt", "--lean", "--yes"])
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    assert!(removing.status.success(), "{removing:?}");
    measure("after adopt --lean", lean).await;
    measure("once more", lean).await;
    assert_eq!(database.count("exposure_events").await, 4 * 63_000);
}
