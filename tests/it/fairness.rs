//! Measurements: what a tenant notices of another at twenty times its limit, and what 100,000 API
//! keys cost.
//!
//! ```sh
//! cargo test --release --test it fairness -- --ignored --nocapture --test-threads 1
//! ```
//!
//! Calm and load alternate, and the medians are printed. `FAIRNESS_ROUNDS` (5, and 3 for keys),
//! `FAIRNESS_SECONDS` (10) and `KEYS_SECONDS` (60) make it shorter or longer.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use recsys_ingest::tenants::role::Role;
use reqwest::Method;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attacks::{post, posts, setting};
use crate::harness::{Client, DEMO, Database, OTHER, Process, Settings, click};

const PATH: &str = "/v1/interactions";

/// Events a second that each tenant may send. The one that is measured sends 200.
const LIMIT: u64 = 500;
/// How much of that the other sends.
const TIMES: u64 = 20;
const BODY_EVENTS: u64 = 50;

/// Bodies of the flood without an answer: past this, it waits.
const OPEN_MAX: usize = 64;

/// Keys that are added, senders of single events, and the memory that the keys may take.
const KEYS: u64 = 100_000;
const SENDERS: usize = 16;
const KEYS_MEMORY_MAX: u64 = 50 << 20;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn median<T: PartialOrd + Copy>(mut all: Vec<T>) -> T {
    all.sort_by(|one, other| one.partial_cmp(other).unwrap());
    all[all.len() / 2]
}

/// A process that sends as the tenant `other`, at a fixed rate.
struct Flood(Child);

impl Flood {
    fn start(address: SocketAddr, time: Duration) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("fairness::a_flood_in_a_process_of_its_own")
            .env("FLOOD_ADDRESS", address.to_string())
            .env("FLOOD_MILLISECONDS", time.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits for its end; returns what it says.
    fn end(self) -> String {
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("flood: "));
        line.expect("the flood says what it sent").to_owned()
    }
}

#[test]
#[ignore = "part of the measurement"]
fn a_flood_in_a_process_of_its_own() {
    let Ok(address) = std::env::var("FLOOD_ADDRESS") else {
        return;
    };
    let client = Client::new(address.parse().unwrap())
        .role("other", Role::Ingest)
        .query("ack=durable");
    let time = Duration::from_millis(setting("FLOOD_MILLISECONDS", 1000));
    runtime().block_on(flood(&client, time));
}

async fn flood(client: &Client, time: Duration) {
    let every = Duration::from_secs(1).mul_f64(BODY_EVENTS as f64 / (LIMIT * TIMES) as f64);
    let open = Arc::new(Semaphore::new(OPEN_MAX));
    let (start, mut due) = (Instant::now(), Duration::ZERO);
    let mut sent = JoinSet::new();
    while due < time {
        tokio::time::sleep_until((start + due).into()).await;
        let place = Arc::clone(&open).acquire_owned().await.unwrap();
        let client = client.clone();
        sent.spawn(async move {
            let body: Value = (0..BODY_EVENTS)
                .map(|_| click(&Uuid::now_v7().to_string()))
                .collect();
            let body = body.to_string().into_bytes();
            let reply = client.try_send(Method::POST, PATH, body).await;
            drop(place);
            reply.map_or(0, |reply| reply.status)
        });
        due += every;
    }
    let answers = sent.join_all().await;
    let count = |wanted: u16| answers.iter().filter(|status| **status == wanted).count();
    println!(
        "flood: {} bodies of {BODY_EVENTS} in {:?}: {} taken, {} over the limit, {} without room",
        answers.len(),
        start.elapsed(),
        count(202),
        count(429),
        count(503)
    );
}

#[test]
#[ignore = "measures for minutes"]
fn a_tenant_at_twenty_times_its_limit_and_another() {
    let (runtime, rounds) = (runtime(), setting("FAIRNESS_ROUNDS", 5));
    let time = Duration::from_secs(setting("FAIRNESS_SECONDS", 10));
    let mut all_good = true;
    for (mode, tenants) in [
        ("with that limit", &[DEMO, OTHER][..]),
        ("without a limit", &[DEMO]),
    ] {
        let database = runtime.block_on(Database::with_tenants());
        for tenant in tenants {
            runtime.block_on(database.execute(&format!(
                "INSERT INTO ingest_tenant_settings (tenant_id, settings)
                 VALUES ('{tenant}', '{{\"limits\": {{\"events_per_second\": {LIMIT}}}}}')"
            )));
        }
        let settings = Settings::new(&database)
            .with("--default-ack", "durable")
            .with("--spool-bytes-max", "4GiB");
        let (process, client) = Process::serve(&settings);
        runtime.block_on(posts(client.address, Duration::from_secs(2)));
        let (mut calm, mut load, mut refused) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            let one = runtime.block_on(posts(client.address, time));
            let lead = Duration::from_millis(500);
            let flood = Flood::start(client.address, lead + time + lead);
            std::thread::sleep(lead);
            let other = runtime.block_on(posts(client.address, time));
            println!(
                "{mode}, round {round}: calm {:?}, load {:?}; {}",
                one.p99,
                other.p99,
                flood.end()
            );
            refused += one.refusals.len() + other.refusals.len();
            // On kept connections; attacks measure new ones.
            calm.push(one.p99[1].as_secs_f64() * 1e3);
            load.push(other.p99[1].as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_secs(1));
        }
        drop(process);
        let (calm, load) = (median(calm), median(load));
        let good = refused == 0 && load <= (2.0 * calm).max(50.0);
        println!(
            "fairness, another tenant at {TIMES} times {LIMIT} events/s {mode}: p99 at durable {calm:.1} ms calm, \
             {load:.1} ms under load; {refused} refused: {}",
            if good { "holds" } else { "DOES NOT HOLD" }
        );
        all_good &= good;
    }
    assert!(all_good, "see above");
}

/// Single events a second, from senders that wait for each answer.
async fn throughput(address: SocketAddr, time: Duration) -> f64 {
    let mut senders = JoinSet::new();
    let start = Instant::now();
    for _ in 0..SENDERS {
        senders.spawn(async move {
            let (mut kept, mut sent) = (None, 0_u32);
            while start.elapsed() < time {
                let (text, stream) = post(address, kept.take()).await.unwrap();
                assert!(text.starts_with("HTTP/1.1 202 "), "{text}");
                kept = Some(stream);
                sent += 1;
            }
            sent
        });
    }
    let sent: u32 = senders.join_all().await.into_iter().sum();
    f64::from(sent) / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "measures for minutes"]
fn a_hundred_thousand_keys_and_none() {
    let (runtime, rounds) = (runtime(), setting("FAIRNESS_ROUNDS", 3));
    let time = Duration::from_secs(setting("KEYS_SECONDS", 60));
    let databases = [0, KEYS].map(|keys| {
        let database = runtime.block_on(Database::with_tenants());
        runtime.block_on(database.execute(&format!(
            "INSERT INTO tenant_api_keys (tenant_id, name, key_prefix, key_hash, roles)
             SELECT '{OTHER}', 'many', 'rk_many', encode(sha256(n::text::bytea), 'hex'), '{{ingest}}'
               FROM generate_series(1, {keys}) n"
        )));
        database
    });
    let (mut rates, mut memory) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..rounds {
        for (n, database) in databases.iter().enumerate() {
            // With refreshes, as by default.
            let settings = Settings::new(database)
                .with("--default-ack", "durable")
                .with("--key-refresh", "5s")
                .with("--spool-bytes-max", "4GiB");
            let (process, client) = Process::serve(&settings);
            runtime.block_on(throughput(client.address, Duration::from_secs(5)));
            let rate = runtime.block_on(throughput(client.address, time));
            let bytes = process.memory("VmHWM");
            println!(
                "round {round}, {} keys: {rate:.0} events/s, {} MiB at most",
                [0, KEYS][n],
                bytes >> 20
            );
            rates[n].push(rate);
            memory[n].push(bytes);
        }
    }
    let [none, many] = rates.map(median);
    let [without, with] = memory.map(median);
    let (cost, grown) = (1.0 - many / none, with.saturating_sub(without));
    let good = cost <= 0.02 && grown < KEYS_MEMORY_MAX;
    println!(
        "{KEYS} keys: {:.1} % of single-event throughput ({none:.0} and {many:.0} events/s), {} MiB more: {}",
        cost * 100.0,
        grown >> 20,
        if good { "holds" } else { "DOES NOT HOLD" }
    );
    assert!(good, "see above");
}
