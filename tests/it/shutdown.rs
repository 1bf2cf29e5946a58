//! Promise: a stop loses nothing that was accepted, and ends with exit code 0.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    Client, DEMO, Database, Process, RawConnection, Rig, Service, Settings, click, texts, uuid_of,
};

const PATH: &str = "/v1/interactions";

/// Posts bodies until the server is gone; returns the names of all accepted events.
async fn post_until_gone(client: Client, name: String, posted: Arc<AtomicU32>) -> Vec<String> {
    let mut accepted = Vec::new();
    for round in 0.. {
        let names: Vec<_> = (0..20).map(|n| format!("{name} {round} {n}")).collect();
        let body: Vec<_> = names.iter().map(|name| click(name)).collect();
        let body = json!(body).to_string().into_bytes();
        match client.try_send(Method::POST, PATH, body).await {
            Ok(reply) if matches!(reply.status, 200 | 202) => {
                assert_eq!(reply.json["accepted"], 20);
                accepted.extend(names);
                posted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text),
            // Without an answer nothing was promised.
            Err(_) => break,
        }
    }
    accepted
}

async fn stored(database: &Database) -> HashSet<String> {
    let sql = "SELECT event_id::text FROM interaction_events";
    let ids = texts(&database.connect().await, sql).await;
    ids.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_accepted_before_a_signal_is_stored_and_the_exit_code_is_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let database = Database::with_tenants().await;
        let (mut process, client) = Process::serve(&Settings::new(&database));
        let posted = Arc::new(AtomicU32::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for n in 0..6 {
            // Clients that wait for the commit, and clients that do not.
            let ack = ["ack=committed", "ack=received"][n % 2];
            let client = client.query(ack);
            let posted = Arc::clone(&posted);
            clients.spawn(post_until_gone(client, format!("{n}"), posted));
        }
        while posted.load(Ordering::Relaxed) < 60 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.signal(signal);
        let accepted: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
        let status = process.wait();
        assert!(status.success(), "{status}\n{}", process.log());
        let stored = stored(&database).await;
        assert!(accepted.len() >= 60 * 20);
        for name in &accepted {
            assert!(
                stored.contains(&uuid_of(DEMO, name)),
                "{name} is not stored"
            );
        }
    }
}

#[tokio::test]
async fn a_request_that_is_under_way_is_finished_and_new_ones_find_nobody() {
    let service = Service::start().await;
    let address = service.client().address;
    let mut slow = RawConnection::open(address).await;
    let body = click("a").to_string();
    let length = body.len().to_string();
    slow.send_head(PATH, &[("content-length", &length)]).await;
    slow.write(&body.as_bytes()[..10]).await;
    // Let the head arrive: a stop finishes only requests that have begun.
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.begin_stop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is closed at once"
    );
    slow.write(&body.as_bytes()[10..]).await;
    assert_eq!(slow.reply().await.settled(), (1, 0, 0, 0));
    let database = service.database.clone();
    service.stop().await.unwrap();
    assert_eq!(database.count("interaction_events").await, 1);
}

#[tokio::test]
async fn a_stop_waits_for_a_batch_that_is_not_yet_due() {
    let service = Service::with(|s| s.with("--flush-after", "1h")).await;
    let client = service.client().query("ack=received");
    for n in 0..5 {
        let reply = client.post(PATH, &click(&format!("{n}"))).await;
        assert_eq!(reply.status, 202);
    }
    let database = service.database.clone();
    assert_eq!(database.count("interaction_events").await, 0);
    service.stop().await.unwrap();
    assert_eq!(database.count("interaction_events").await, 5);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_stop() {
    let service = Service::with(|s| s.with("--shutdown-grace", "1h")).await;
    let mut idle = RawConnection::open(service.client().address).await;
    let reply = idle
        .post(PATH, &[], click("a").to_string().as_bytes())
        .await;
    assert_eq!(reply.status, 200);
    let _silent = RawConnection::open(service.client().address).await;
    tokio::time::timeout(Duration::from_secs(10), service.stop())
        .await
        .expect("the stop waits for idle connections")
        .unwrap();
}

#[tokio::test]
async fn a_busy_port_is_reported_with_its_number_and_what_to_do() {
    let database = Database::with_tenants().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let settings = Settings::new(&database).with("--listen", address);
    let mut process = Process::run(settings.arguments());
    assert!(!process.wait().success());
    let log = process.log();
    assert!(log.contains(&address.to_string()), "{log}");
    assert!(log.contains("--listen"), "{log}");
}

/// A port without a listener.
const NO_DATABASE: &str = "postgresql://nobody@127.0.0.1:1/nothing";

#[tokio::test]
async fn without_a_database_and_with_an_empty_spool_a_stop_ends_at_once() {
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database)
        .with("--database-url", NO_DATABASE)
        .with("--shutdown-grace", "1h");
    let mut process = Process::run(settings.arguments());
    process.listening();
    let status = process.stop();
    assert!(status.success(), "{status}\n{}", process.log());
    assert_eq!(process.report()["in_time"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once_and_the_exit_code_names_it() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut rig = Rig::start(|settings| settings.with("--shutdown-grace", "1h")).await;
        rig.cluster.suspend();
        let durable = rig.client.query("ack=durable");
        assert_eq!(durable.post(PATH, &click("one")).await.status, 202);
        rig.process.signal(Signal::TERM);
        rig.process.message("stopping");
        rig.process.signal(second);
        let status = rig.process.wait();
        assert_eq!(status.code(), Some(code), "{status}\n{}", rig.process.log());
        // What was acknowledged is on disk.
        rig.cluster.resume();
        rig.serve();
        rig.settle().await;
        assert_eq!(rig.database.count("interaction_events").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_counts_once_for_requests_and_backlog_together() {
    let grace = Duration::from_secs(8);
    let mut rig = Rig::start(|settings| {
        settings
            .with("--shutdown-grace", "8s")
            .with("--commit-timeout", "1h")
    })
    .await;
    rig.cluster.suspend();
    // A request that waits for its COMMIT takes the whole grace.
    let address = rig.address();
    let mut waiting = RawConnection::open(address).await;
    let body = click("a").to_string();
    let length = body.len().to_string();
    waiting
        .send_head(
            &format!("{PATH}?ack=committed"),
            &[("content-length", &length)],
        )
        .await;
    waiting.write(body.as_bytes()).await;
    while rig.rows().await[0] == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.process.signal(Signal::TERM);
    let (status, took) = rig.process.wait_timed();
    assert!(status.success(), "{status}\n{}", rig.process.log());
    assert!(took > grace / 2 && took < grace * 5 / 4, "{took:?}");
    let report = rig.process.report();
    assert_eq!(
        (&report["in_time"], &report["spooled"]),
        (&json!(false), &json!(1))
    );
    let log = rig.process.log();
    assert!(
        log.contains("Postgres to take what is spooled"),
        "it says what it waits for: {log}"
    );
    rig.cluster.resume();
}

#[tokio::test]
async fn a_body_that_dribbles_in_does_not_hold_up_a_stop() {
    let service = Service::with(|s| s.with("--shutdown-grace", "1h")).await;
    let address = service.client().address;
    let (mut slow, mut head_only) = (
        RawConnection::open(address).await,
        RawConnection::open(address).await,
    );
    slow.send_head(PATH, &[("content-length", "1000000")]).await;
    head_only.write(b"POST /v1/inter").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    service.begin_stop();
    let started = Instant::now();
    let dribbling = tokio::spawn(async move {
        for _ in 0..200 {
            slow.write(b" ").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slow.reply().await
    });
    tokio::time::timeout(Duration::from_secs(20), service.stop())
        .await
        .expect("the stop waits for a body that dribbles in")
        .unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(dribbling.await.unwrap().problem(), (503, "stopping"));
}

#[tokio::test]
async fn signals_of_users_are_passed_over() {
    let database = Database::with_tenants().await;
    let (mut process, client) = Process::serve(&Settings::new(&database));
    for signal in [Signal::USR1, Signal::USR2, Signal::XFSZ, Signal::PIPE] {
        process.signal(signal);
    }
    let reply = client.post(PATH, &click("a")).await;
    assert_eq!(reply.status, 200, "{}", process.log());
    let status = process.stop();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}
