//! What an erasure in millions of rows takes, and what intake feels of it.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{events, key, rows, said, users};
use crate::harness::{Client as Http, Cluster, DEMO, Database, Process, Settings};
use crate::schema::words::day;

/// What posts of ten events each take, in milliseconds, until `stop`; ascending.
async fn post_until(http: Http, stop: Arc<AtomicBool>) -> Vec<f64> {
    let mut took = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let body: Value = (0..10)
            .map(|at| events(&format!("load {n} {at}"), "bob", "2026-03-20")[1].clone())
            .collect();
        let started = Instant::now();
        let reply = http.post("/v1/interactions", &body).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        took.push(started.elapsed().as_secs_f64() * 1e3);
        n += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort_by(f64::total_cmp);
    took
}

/// Ten days of rows, of which one in a thousand is of the user; nine of the days are sealed.
async fn fill(database: &Database, rows_in_all: i64) {
    let mut client = database.connect().await;
    let table = recsys_ingest::event::table::Table::Interactions;
    let days: Vec<String> = (10..20).map(|day| format!("2026-03-{day}")).collect();
    let rows_of_day = rows_in_all / 10;
    for date in &days {
        recsys_ingest::partitions::create::ensure(&mut client, table, day(date), "test")
            .await
            .unwrap();
        let sql = format!(
            "INSERT INTO interaction_events
                 (tenant_id, occurred_at, event_id, received_at, user_key, event_type, item_id, meta)
             SELECT '{DEMO}', timestamptz '{date} 00:00:00+00' + interval '1 day' * n / ({rows_of_day} + 1),
                    gen_random_uuid(), now(),
                    CASE WHEN n % 1000 = 0 THEN '\\x{}'::bytea ELSE sha256((n % 100000)::text::bytea) END,
                    'view', 'item ' || n % 700, jsonb_build_object('n', n, 'pad', repeat('x', 100))
               FROM generate_series(1, {rows_of_day}) AS n",
            key("ann"),
        );
        client.batch_execute(&sql).await.unwrap();
    }
    let sealed = days[..9]
        .iter()
        .map(|day| format!("interaction_events_{}", day.replace('-', "_")));
    let sealing = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(["partitions", "seal"])
        .args(sealed)
        .args(["--database-url", database.url()])
        .output()
        .unwrap();
    assert!(sealing.status.success(), "{}", said(&sealing));
    client.batch_execute("CHECKPOINT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: ERASURE_ROWS=10000000 cargo test --release --test it millions_of_rows -- --ignored --nocapture"]
async fn a_user_is_erased_from_millions_of_rows_while_events_come_in() {
    let rows_in_all: i64 = std::env::var("ERASURE_ROWS").map_or(1_000_000, |n| n.parse().unwrap());
    let cluster = Cluster::durable(&[("max_wal_size", "4GB")]);
    let database = Database::on(&cluster).await;
    fill(&database, rows_in_all).await;
    let settings = Settings::new(&database);
    let (_process, http) = Process::serve(&settings);
    let http = http.query("ack=durable");
    let measure = async |during: &str, arguments: &'static [&'static str]| {
        let stop = Arc::new(AtomicBool::new(false));
        let posting = tokio::spawn(post_until(http.clone(), Arc::clone(&stop)));
        let started = Instant::now();
        if arguments.is_empty() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        } else {
            let database = database.clone();
            let running = move || users(&database, arguments);
            let done = tokio::task::spawn_blocking(running).await.unwrap();
            println!("{}", said(&done));
            assert!(done.status.success());
        }
        let seconds = started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let took = posting.await.unwrap();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "{during}: {seconds:.1} s, {} posts, p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            took.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        );
        (seconds, at(99))
    };
    let (_, calm) = measure("calm", &[]).await;
    measure("looking", &["erase", "--user-id", "ann", "--dry-run"]).await;
    let (seconds, busy) = measure("erasing", &["erase", "--user-id", "ann"]).await;
    assert_eq!(rows(&database.connect().await, "ann").await, 0);
    assert!(seconds < 30.0, "{seconds:.1} s");
    assert!(busy <= (2.0 * calm).max(50.0), "{calm:.1} ms, {busy:.1} ms");
}
