//! On a real Citus: a coordinator and two workers.

use std::ops::Range;

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{CitusNodes, Client, Database, Process, Settings, citus_bin, eventually, one};

const SCALE: &str = include_str!("../../../docs/scale.md");

/// Events of a body: new ones, the repeats of a body before, and one bad one in some.
const NEW: usize = 90;
const REPEATED: usize = 10;

/// Every so many bodies have a bad row. It costs its lane a second.
const BAD_EVERY: usize = 20;

/// Tenants, on both workers.
const TENANTS: [&str; 2] = ["demo", "other"];

/// The servers, with the tables distributed as the documents say.
async fn distributed(bin_dir: std::path::PathBuf) -> (CitusNodes, Database) {
    let (nodes, database) = CitusNodes::start(bin_dir).await;
    let sql = SCALE
        .split("```sql\n")
        .find(|part| part.contains("create_distributed_table"));
    let sql = sql.unwrap().split("```").next().unwrap();
    database.execute(sql).await;
    let refusing =
        "ALTER TABLE interaction_events ADD CONSTRAINT no_poison CHECK (item_id <> 'poison')";
    database.execute(refusing).await;
    (nodes, database)
}

/// An interaction on one of ten days.
fn interaction(number: usize) -> Value {
    json!({
        "event_id": format!("e{number}"), "event_type": "click", "item_id": format!("i{number}"),
        "occurred_at": format!("2026-03-{:02}T08:00:00Z", 1 + number % 10), "user_id": format!("u{}", number % 50),
    })
}

/// Posts a tenant's bodies one after the other, and checks each verdict.
async fn post(client: Client, bodies: Range<usize>) {
    for body in bodies.clone() {
        let from = body * NEW;
        let mut events: Vec<Value> = (from..from + NEW).map(interaction).collect();
        let repeated = if body == bodies.start { 0 } else { REPEATED };
        events.extend((from - repeated * usize::from(repeated > 0)..from).map(interaction));
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

/// Posts bodies of all tenants at once, and compares the tables and accounts.
async fn exact(bodies: usize) {
    let Some(bin_dir) = citus_bin() else { return };
    let (_nodes, database) = distributed(bin_dir).await;
    let settings = Settings::new(&database).with("--horizon-past", "3650d");
    let (mut process, client) = Process::serve(&settings);
    let posting = TENANTS.map(|tenant| {
        let client = client.role(tenant, Role::Ingest);
        tokio::spawn(post(client, 0..bodies))
    });
    for posting in posting {
        posting.await.unwrap();
    }
    let client = database.connect().await;
    let stored = TENANTS.len() * bodies * NEW;
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
    let bad = TENANTS.len() * bodies.div_ceil(BAD_EVERY);
    assert_eq!(database.count("ingest_quarantine").await, bad as i64);
    assert!(process.stop().success());
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
        for tenant in TENANTS {
            let client = client.role(tenant, Role::Ingest);
            let reply = client.post("/v1/interactions", &json!(events)).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
        }
    };
    send(&client, 0..100).await;
    let both = |rows| {
        let database = database.clone();
        async move {
            eventually("the rows", async || {
                database.count("interaction_events").await == rows
            })
            .await;
        }
    };
    both(200).await;
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
    both(400).await;
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

    let erase = ["users", "erase", "--tenant", "demo", "--user-id", "u7"];
    let said = cli(&erase);
    assert!(said.contains("20 interactions"), "{said}");
    assert_eq!(database.count("interaction_events").await, 980);

    cli(&[
        "partitions", "retain", "--retain-interactions", "1d", "--horizon-past", "1d",
    ]);
    assert_eq!(database.count("interaction_events").await, 0);
    let removed = "SELECT sum(row_count)::bigint FROM ingest_removed_rows";
    assert_eq!(one::<i64>(&database.connect().await, removed).await, 1000);
    let view = "SELECT count(*) FROM recsys_outcomes";
    assert_eq!(one::<i64>(&database.connect().await, view).await, 0);
    settings.assert_verified();
}
