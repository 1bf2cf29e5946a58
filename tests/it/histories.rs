//! Promise: in no history of two services on copies of one spool, with kills, copies and lost
//! connections, is an event lost or an answer false. The tests of `writer::decision` simulate
//! such histories; here they run with real processes and a real server.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;

use crate::copies::copy;
use crate::harness::{
    Client, Cluster, DEMO, Database, Process, Settings, click, eventually, uuid_of,
};

/// The acknowledged events of a history.
#[derive(Default)]
struct Told {
    durable: Vec<String>,
    committed: u64,
}

/// Posts an event; an answer of `committed` is checked against the table at once.
async fn post(
    random: &mut StdRng,
    client: &Client,
    events: &mut u32,
    told: &mut Told,
    admin: &tokio_postgres::Client,
    seed: u64,
) {
    *events += 1;
    let name = format!("{seed} {events}");
    let ack = if random.random_bool(0.6) {
        "committed"
    } else {
        "durable"
    };
    let asks = client.query(&format!("ack={ack}"));
    let body = click(&name).to_string().into_bytes();
    // A broken connection is no answer: nothing was promised.
    let Ok(reply) = asks.try_send(Method::POST, "/v1/interactions", body).await else {
        return;
    };
    match reply.status {
        200 => {
            let id = uuid_of(DEMO, &name);
            let sql = format!("SELECT count(*) FROM interaction_events WHERE event_id = '{id}'");
            let found: i64 = admin.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(found, 1, "history {seed}: {name} was said to be committed");
            told.committed += 1;
            told.durable.push(name);
        }
        202 => told.durable.push(name),
        status => assert_eq!(status, 503, "history {seed}: {}", reply.text),
    }
}

async fn history(database: &Database, seed: u64) -> Told {
    let mut random = StdRng::seed_from_u64(seed);
    let base = Settings::new(database)
        .with("--writers", 1)
        .with("--body-bytes-max", "64KiB")
        .with("--spool-bytes-max", "2MiB")
        .with("--commit-timeout", "3s");
    let directories = [base.spool.path().join("s"), base.spool.path().join("t")];
    let settings = directories
        .each_ref()
        .map(|directory| base.clone().with("--spool-dir", directory.display()));
    let mut processes = [Some(Process::serve(&settings[0])), None];
    let admin = database.connect().await;
    let (mut events, mut told) = (0, Told::default());
    for _ in 0..random.random_range(6..14) {
        let at = random.random_range(0..2);
        match (random.random_range(0..10), &mut processes[at]) {
            (0..6, Some((_, client))) => {
                let client = client.clone();
                for _ in 0..random.random_range(1..4) {
                    post(&mut random, &client, &mut events, &mut told, &admin, seed).await;
                }
            }
            (6, Some((process, _))) => {
                process.kill();
                processes[at] = None;
            }
            (7, _) => {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                            WHERE application_name = 'recsys-ingest'
                              AND datname = current_database() AND pid <> pg_backend_pid()";
                drop(admin.query_one(sql, &[]).await.unwrap());
            }
            (_, None) => {
                if !directories[at].exists() {
                    copy(&directories[1 - at], &directories[at]);
                }
                processes[at] = Some(Process::serve(&settings[at]));
            }
            (_, Some(_)) => {}
        }
    }
    drop(processes);
    for settings in settings
        .iter()
        .zip(&directories)
        .filter_map(|(settings, directory)| directory.exists().then_some(settings))
    {
        let (mut process, client) = Process::serve(settings);
        eventually("the spool to be empty", async || {
            let verbose = client.get("/readyz?verbose").await.json;
            let tables = verbose["rows"].as_array().unwrap();
            tables.iter().all(|table| table["spooled"] == 0) && verbose["status"] == "ready"
        })
        .await;
        let (code, text) = settings.verify();
        assert_eq!(code, 0, "history {seed}: {text}");
        process.kill();
    }
    for name in &told.durable {
        let id = uuid_of(DEMO, name);
        let sql = format!("SELECT count(*) FROM interaction_events WHERE event_id = '{id}'");
        let found: i64 = admin.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(found, 1, "history {seed}: {name} is there {found} times");
    }
    told
}

async fn histories(seeds: std::ops::Range<u64>) {
    let cluster = Cluster::start(&[("autovacuum", "off"), ("max_connections", "100")]);
    let database = Database::on(&cluster).await;
    let (mut durable, mut committed) = (0, 0);
    for seed in seeds.clone() {
        // The histories share a database: event names contain the seed, so they do not collide.
        let told = tokio::time::timeout(Duration::from_secs(120), history(&database, seed));
        let told = told.await.expect("a history ends");
        durable += told.durable.len() as u64;
        committed += told.committed;
        if (seed + 1) % 50 == 0 {
            println!(
                "{} histories: {durable} acknowledged, {committed} as committed",
                seed + 1
            );
        }
    }
    assert!(
        committed > 0 && durable > committed,
        "{durable} {committed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_histories_of_two_services_on_copies_of_a_spool_lose_and_invent_nothing() {
    histories(0..8).await;
}

/// A thousand histories, or as many as INGEST_HISTORIES says:
/// `cargo test --test it -- --ignored --nocapture histories`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn a_thousand_histories_of_two_services_on_copies_of_a_spool_lose_and_invent_nothing() {
    let number = std::env::var("INGEST_HISTORIES").map_or(1000, |text| text.parse().unwrap());
    histories(1000..1000 + number).await;
}
