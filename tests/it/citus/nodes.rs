//! On a real Citus: a coordinator and two workers.

use std::ops::Range;
use std::path::PathBuf;

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{CitusNodes, Client, Database, Process, Settings, citus_bin, eventually, one};

const SCALE: &str = include_str!("../../../docs/scale.md");

/// Events of a body: new ones, the repeats of a body before, and one bad one in some.
const NEW: usize = 90;
const REPEATED: usize = 10;

/// One body in twenty has a bad row. Its lane tries it for a second before it sets it aside.
const BAD_EVERY: usize = 20;

/// Tenants, `t0` and so on, on both workers. Each body has events of all.
pub(super) const TENANTS: usize = 20;

/// What posts bodies at once.
const POSTERS: usize = 2;

/// The servers, with the tables distributed as the documents say.
pub(super) async fn distributed(bin_dir: PathBuf) -> (CitusNodes, Database) {
    let (nodes, database) = CitusNodes::start(bin_dir).await;
    let sql = SCALE
        .split("```sql\n")
        .find(|part| part.contains("create_distributed_table"));
    let sql = sql.unwrap().split("```").next().unwrap();
    database.execute(sql).await;
    make_tenants(&database).await;
    let refusing =
        "ALTER TABLE interaction_events ADD CONSTRAINT no_poison CHECK (item_id <> 'poison')";
    database.execute(refusing).await;
    (nodes, database)
}

/// Makes the tenants.
pub(super) async fn make_tenants(database: &Database) {
    let tenants = format!(
        "INSERT INTO tenants (external_id, name) SELECT 't' || n, 't' || n FROM generate_series(0, {TENANTS} - 1) AS n"
    );
    database.execute(&tenants).await;
}

/// An interaction on one of ten days.
fn interaction(number: usize) -> Value {
    json!({
        "tenant": format!("t{}", number % TENANTS), "event_id": format!("e{number}"), "event_type": "click", "item_id": format!("i{number}"), "request_id": format!("r{number}"),
        "occurred_at": format!("2026-03-{:02}T08:00:00Z", 1 + number % 10), "user_id": format!("u{}", number % 50),
    })
}

/// Posts bodies one after the other, and checks each verdict.
async fn post(client: Client, bodies: Range<usize>) {
    for body in bodies.clone() {
        let from = body * NEW;
        let mut events: Vec<Value> = (from..from + NEW).map(interaction).collect();
        let repeated = if body == bodies.start { 0 } else { REPEATED };
        events.extend((from - repeated..from).map(interaction));
        let is_bad = body % BAD_EVERY == 0;
        if is_bad {
            let mut bad = interaction(from);
            bad["event_id"] = json!(format!("bad {body}"));
            bad["item_id"] = json!("poison");
            events.insert(37, bad);
        }
        let reply = client.post("/v1/interactions", &json!(events)).await;
        let expected = (NEW as u64, repeated as u64, usize::from(is_bad), 0);
        assert_eq!(reply.settled(), expected, "body {body}: {}", reply.text);
        if is_bad {
            let bad = &reply.json["quarantined"][0];
            assert_eq!(bad["index"], 37);
            assert!(
                bad["message"].as_str().unwrap().contains("no_poison"),
                "{bad}"
            );
        }
    }
}

/// Posts bodies, and compares the tables and accounts.
async fn exact(bodies: usize) {
    let Some(bin_dir) = citus_bin() else { return };
    let (_nodes, database) = distributed(bin_dir).await;
    let settings = Settings::new(&database).with("--horizon-past", "3650d");
    let (mut process, client) = Process::serve(&settings);
    let posting = (0..POSTERS).map(|poster| {
        let client = client.role("demo", Role::Service);
        tokio::spawn(post(client, poster * bodies..(poster + 1) * bodies))
    });
    let posting: Vec<_> = posting.collect();
    for posting in posting {
        posting.await.unwrap();
    }
    let client = database.connect().await;
    let stored = POSTERS * bodies * NEW;
    let rows =
        "SELECT count(*) || ' ' || count(DISTINCT (tenant_id, event_id)) FROM interaction_events";
    assert_eq!(
        one::<String>(&client, rows).await,
        format!("{stored} {stored}")
    );
    let shards = "SELECT count(DISTINCT nodename || ':' || nodeport) FROM citus_shards
                   WHERE table_name = 'interaction_events'::regclass";
    assert_eq!(
        one::<i64>(&client, shards).await,
        2,
        "rows are on both workers"
    );
    let bad = (0..POSTERS * bodies).step_by(BAD_EVERY).count();
    assert_eq!(database.count("ingest_quarantine").await, bad as i64);
    assert!(process.stop().success());
    // No batch began again because a connection to a worker had failed.
    assert!(!process.log().contains("25P02"), "{}", process.log());
    settings.assert_verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_duplicates_and_bad_rows_are_exact_on_workers() {
    exact(30).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_events_are_exact_on_workers() {
    exact(510).await;
}

/// COMMIT prepares a transaction on each connection to a worker, and notes it until it was looked
/// after.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_one_connection_to_each_worker() {
    let Some(bin_dir) = citus_bin() else { return };
    let (_nodes, database) = distributed(bin_dir).await;
    let settings = Settings::new(&database).with("--horizon-past", "3650d");
    let (_process, client) = Process::serve(&settings);
    let client = client.role("demo", Role::Service);
    let post = async |numbers: Range<usize>| {
        let count = numbers.len() as u64;
        let body: Vec<Value> = numbers.map(interaction).collect();
        let reply = client.post("/v1/interactions", &json!(body)).await;
        assert_eq!(reply.settled(), (count, 0, 0, 0), "{}", reply.text);
    };
    // Makes the partitions.
    post(0..10).await;
    database.execute("DELETE FROM pg_dist_transaction").await;
    post(10..200).await;
    assert_eq!(database.count("pg_dist_transaction").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_goes_away_holds_everything_and_loses_nothing() {
    let Some(bin_dir) = citus_bin() else { return };
    let (mut nodes, database) = distributed(bin_dir).await;
    let settings = Settings::new(&database)
        .with("--horizon-past", "3650d")
        .with("--default-ack", "durable");
    let (mut process, client) = Process::serve(&settings);
    let send = async |client: &Client, events: Range<usize>| {
        let events: Vec<Value> = events.map(interaction).collect();
        let client = client.role("demo", Role::Service);
        let reply = client.post("/v1/interactions", &json!(events)).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    };
    send(&client, 0..100).await;
    let there = |rows| {
        let database = database.clone();
        async move {
            eventually("the rows", async || {
                database.count("interaction_events").await == rows
            })
            .await;
        }
    };
    there(100).await;
    nodes.workers[1].crash();
    send(&client, 50..150).await;
    eventually("a worker that is missed", async || {
        client.get("/readyz").await.json["status"] == "degraded"
    })
    .await;
    process.kill();
    let (mut process, client) = Process::listen(&settings);
    eventually("its keys", async || {
        client.get("/readyz").await.status == 200
    })
    .await;
    send(&client, 150..200).await;
    nodes.workers[1].restart();
    there(200).await;
    eventually("readiness", async || {
        client.get("/readyz").await.json["status"] == "ready"
    })
    .await;
    assert!(process.stop().success());
    assert_eq!(database.count("ingest_quarantine").await, 0);
    settings.assert_verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_sealed_measured_and_removed_and_users_erased_on_workers() {
    let Some(bin_dir) = citus_bin() else { return };
    let (_nodes, database) = distributed(bin_dir).await;
    let settings = Settings::new(&database).with("--horizon-past", "3650d");
    let (mut process, client) = Process::serve(&settings);
    let events: Vec<Value> = (0..1000).map(interaction).collect();
    let client = client.role("demo", Role::Service);
    let reply = client.post("/v1/interactions", &json!(events)).await;
    assert_eq!(reply.settled(), (1000, 0, 0, 0), "{}", reply.text);
    assert!(process.stop().success());
    let cli = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
            .args(arguments)
            .env("DATABASE_URL", database.url())
            .env("EXPOSURE_HASH_SALT", crate::harness::SALT)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    cli(&["partitions", "seal", "--seal-after", "0s"]);
    let listed = cli(&["partitions", "list"]);
    let line = listed
        .lines()
        .find(|line| line.contains("interaction_events_2026_03_01"));
    let fields: Vec<&str> = line.unwrap().split('\t').collect();
    assert!(fields[5].parse::<u64>().unwrap() > 100_000, "{fields:?}");
    assert_eq!((fields[4], fields[6]), ("?", "sealed"), "{fields:?}");

    let client = database.connect().await;
    let view = "SELECT count(*) FROM recsys_outcomes";
    assert_eq!(one::<i64>(&client, view).await, 1000);

    let erase = ["users", "erase", "--tenant", "t7", "--user-id", "u7"];
    let said = cli(&erase);
    assert!(said.contains("10 interactions"), "{said}");
    assert_eq!(database.count("interaction_events").await, 990);

    cli(&[
        "partitions", "retain", "--retain-interactions", "1d", "--horizon-past", "1d",
    ]);
    assert_eq!(database.count("interaction_events").await, 0);
    let removed = "SELECT sum(row_count)::bigint FROM ingest_removed_rows";
    assert_eq!(one::<i64>(&client, removed).await, 1000);
    settings.assert_verified();
}
