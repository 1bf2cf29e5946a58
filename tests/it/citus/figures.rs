//! What a row costs on Citus, beside one plain PostgreSQL: prints figures.
//!
//! `CITUS_PG_BIN=DIR cargo test --release --test it citus::figures -- --ignored --nocapture`

use std::time::{Duration, Instant};

use recsys_ingest::event::table::Table;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use super::nodes::{TENANTS, distributed, make_tenants};
use crate::harness::{Client, Cluster, Database, Process, Settings, citus_bin};

/// Events of each table in a round, in bodies of a hundred.
const EVENTS: [(Table, usize); 2] = [(Table::Interactions, 300_000), (Table::Exposures, 100_000)];
const BODY: usize = 100;
const ROUNDS: usize = 3;
const POSTERS: usize = 8;

/// CPU seconds of servers, with those of their sessions that have ended.
fn cpu(servers: &[&Cluster]) -> f64 {
    let mut ticks = 0.0;
    for process in std::fs::read_dir("/proc").unwrap() {
        let path = process.unwrap().path();
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else {
            continue;
        };
        let is = |pid: &str| servers.iter().any(|server| server.pid().to_string() == pid);
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let is_server = is(path.file_name().unwrap().to_str().unwrap());
        // Its own time, and that of its children that it has waited for.
        let times = match (is_server, is(fields[1])) {
            (true, _) => 11..15,
            (false, true) => 11..13,
            (false, false) => continue,
        };
        ticks += fields[times]
            .iter()
            .map(|time| time.parse::<f64>().unwrap())
            .sum::<f64>();
    }
    ticks / 100.0
}

/// A service, and its caller that may post for all tenants.
fn serve(database: &Database, flush_after: &str) -> (Process, Client) {
    let settings = Settings::new(database)
        .with("--default-ack", "durable")
        .with("--flush-after", flush_after)
        .with("--spool-bytes-max", "8GiB");
    let (process, client) = Process::serve(&settings);
    (process, client.role("demo", Role::Service))
}

/// Bodies of events of today, of all tenants.
fn bodies(table: Table, count: usize, round: usize) -> Vec<Vec<u8>> {
    let event = |n: usize| {
        let mut event = json!({
            "tenant": format!("t{}", n % TENANTS), "event_id": format!("{round}-{n}"),
            "occurred_at": format!("2026-03-10T{:02}:{:02}:{:02}.{:03}Z", n * 8 / count, n / 60 % 60, n % 60, n % 1000),
            "request_id": format!("request {}", n / 3), "user_id": format!("user {}", n % 10_007),
            "session_id": format!("session {}", n % 5003), "surface": "home",
        });
        let more = match table {
            Table::Exposures => json!({
                "items": (1..=20).map(|rank| json!({"item_id": format!("item {}", rank * n % 100_003), "rank": rank, "score": 0.5})).collect::<Value>(),
                "algo_version": "v1", "context": {"device": "phone", "country": "de"},
            }),
            _ => {
                json!({"event_type": "click", "item_id": format!("item {}", n % 100_003), "position": 1 + n % 20})
            }
        };
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let body = |from: usize| (from..from + BODY).map(event).collect::<Value>();
    (0..count / BODY)
        .map(|body_at| body(body_at * BODY).to_string().into_bytes())
        .collect()
}

/// What lines of the service's metrics that begin so say, added up.
async fn counted(client: &Client, names: &str) -> f64 {
    let metrics = client.get("/metrics").await.text;
    let of = metrics.lines().filter(|line| line.starts_with(names));
    of.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// What the rows of a round took.
struct Cost {
    cpu_us: f64,
    rows_a_second: f64,
    rows_a_batch: f64,
}

async fn measure(
    servers: &[&Cluster],
    client: &Client,
    table: Table,
    bodies: Vec<Vec<u8>>,
) -> Cost {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand")]
    let rows = (bodies.len() * BODY) as f64;
    let stored = format!("recsys_ingest_batch_rows_sum{{table=\"{table}\"");
    let batches = format!("recsys_ingest_batch_rows_count{{table=\"{table}\"");
    let expected = counted(client, &stored).await + rows;
    let batches_before = counted(client, &batches).await;
    let (sender, receiver) = flume::unbounded();
    bodies
        .into_iter()
        .for_each(|body| sender.send(body).unwrap());
    drop(sender);
    let (cpu_before, began) = (cpu(servers), Instant::now());
    let posters: Vec<_> = (0..POSTERS)
        .map(|_| {
            let (client, receiver) = (client.clone(), receiver.clone());
            tokio::spawn(async move {
                while let Ok(body) = receiver.recv_async().await {
                    // A full queue says when to come back.
                    while client.post_bytes(table.path(), body.clone()).await.status == 503 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            })
        })
        .collect();
    for poster in posters {
        poster.await.unwrap();
    }
    while counted(client, &stored).await < expected {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Cost {
        cpu_us: (cpu(servers) - cpu_before) * 1e6 / rows,
        rows_a_second: rows / began.elapsed().as_secs_f64(),
        rows_a_batch: rows / (counted(client, &batches).await - batches_before),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn a_row_on_workers_beside_one_on_a_plain_server() {
    let Some(bin_dir) = citus_bin() else { return };
    let (nodes, spread) = distributed(bin_dir).await;
    let plain = Cluster::start(&[("wal_level", "logical"), ("autovacuum", "off")]);
    let alone = Database::on(&plain).await;
    make_tenants(&alone).await;
    let servers: Vec<&Cluster> = nodes.workers.iter().chain([&nodes.coordinator]).collect();
    let ((_one, on_plain), (_other, on_citus)) = (serve(&alone, "50ms"), serve(&spread, "250ms"));
    for (table, count) in EVENTS {
        let mut figures = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let of_plain = measure(&[&plain], &on_plain, table, bodies(table, count, round)).await;
            let of_citus = measure(&servers, &on_citus, table, bodies(table, count, round)).await;
            for (what, cost) in [("plain", &of_plain), ("Citus", &of_citus)] {
                let Cost {
                    cpu_us,
                    rows_a_second,
                    rows_a_batch,
                } = cost;
                println!(
                    "{table}, {what}: {cpu_us:.1} µs of the servers' CPU a row; {rows_a_second:.0} rows/s, {rows_a_batch:.0} a batch"
                );
            }
            figures[0].push(of_plain.cpu_us);
            figures[1].push(of_citus.cpu_us);
        }
        let [plain, citus] = figures.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[ROUNDS / 2]
        });
        println!(
            "{table}: medians {plain:.1} and {citus:.1} µs, {:.2} × (asked: at most 2)",
            citus / plain
        );
    }
    assert_eq!(
        alone.count("interaction_events").await,
        spread.count("interaction_events").await
    );
}
