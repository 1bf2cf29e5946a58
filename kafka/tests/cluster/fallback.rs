//! The local spool while Kafka is away: posts are answered, and each event is stored once.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Brokers, Database, Process, Sent, assert_verified};
use crate::harness::{body, broker, client, eventually, one, post_to};

/// Events of a body.
const EVENTS: usize = 10;

/// A service on this directory, with the fallback or without.
fn serve(
    brokers: &Brokers,
    database: &Database,
    prefix: &str,
    directory: &Path,
    fallback: &str,
) -> Process {
    let directory = directory.display().to_string();
    let flags = [("--spool-dir", &*directory), ("--spool-fallback", fallback)];
    Process::serve_with(brokers, database.url(), prefix, "all", &flags)
}

fn assert_spooled(sent: &Sent) {
    assert_eq!(sent.status, 202, "{:?}", sent.body);
    assert_eq!(sent.body["ack"], "durable", "{:?}", sent.body);
    assert_eq!(sent.body["ack_reason"], "spooled", "{:?}", sent.body);
    assert_eq!(sent.body["accepted"], EVENTS, "{:?}", sent.body);
}

async fn rows(database: &Database) -> i64 {
    database.count("interaction_events").await
}

async fn duplicates(database: &Database) -> i64 {
    let client = database.connect().await;
    let sum = "SELECT coalesce(sum(duplicates), 0)::bigint FROM ingest_ledger";
    one(&client, sum).await
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap()
}

async fn readiness(process: &Process) -> Value {
    let url = format!("http://{}/readyz", process.address());
    let answer = client().get(url).send().await.unwrap();
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_while_the_broker_is_away_is_stored_once_over_kills() {
    let Some(mut broker) = broker().await else {
        return;
    };
    let database = Database::with_tenants().await;
    let folder = tempfile::tempdir().unwrap();
    let prefix = "fallback";
    let service = serve(&broker, &database, prefix, folder.path(), "true");
    let sent = service.post(&body(0, EVENTS), "committed").await;
    assert_eq!(sent.status, 200, "{:?}\n{}", sent.body, service.log());
    assert_eq!(readiness(&service).await["status"], "ready");
    broker.node(0).kill();
    let bodies = 300;
    for number in 1..bodies {
        let ack = if number % 3 == 0 {
            "committed"
        } else {
            "durable"
        };
        assert_spooled(&service.post(&body(number, EVENTS), ack).await);
    }
    let said = readiness(&service).await;
    assert_eq!(said["status"], "degraded", "{said}");
    assert!(
        said.to_string().contains("disk of this machine alone"),
        "{said}"
    );
    assert_eq!(rows(&database).await, whole(EVENTS));
    service.kill();
    broker.node(0).run();
    // Killed while it passes them on.
    let service = serve(&broker, &database, prefix, folder.path(), "true");
    eventually("some rows", async || rows(&database).await > whole(EVENTS)).await;
    service.kill();
    let service = serve(&broker, &database, prefix, folder.path(), "true");
    let all = whole(bodies * EVENTS);
    eventually("all rows", async || rows(&database).await >= all).await;
    eventually("that nothing is left", async || {
        readiness(&service).await["status"] == "ready"
    })
    .await;
    let sent = service.post(&body(bodies, EVENTS), "committed").await;
    assert_eq!(sent.body["ack"], "committed", "{:?}", sent.body);
    assert!(service.stop());
    assert_eq!(rows(&database).await, all + whole(EVENTS));
    // What is passed on is not sent again, also without the flag.
    let before = duplicates(&database).await;
    let service = serve(&broker, &database, prefix, folder.path(), "false");
    let sent = service.post(&body(bodies + 1, EVENTS), "committed").await;
    assert_eq!(sent.body["ack"], "committed", "{:?}", sent.body);
    assert!(service.stop());
    assert_eq!(duplicates(&database).await, before);
    assert_eq!(rows(&database).await, all + whole(2 * EVENTS));
    assert_verified(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_broker_does_not_acknowledge_is_taken_and_passed_on_when_it_is_back() {
    let Some(mut broker) = broker().await else {
        return;
    };
    let database = Database::with_tenants().await;
    let folder = tempfile::tempdir().unwrap();
    let service = serve(&broker, &database, "frozen", folder.path(), "true");
    let sent = service.post(&body(0, EVENTS), "committed").await;
    assert_eq!(sent.status, 200, "{:?}\n{}", sent.body, service.log());
    broker.node(0).signal(Signal::STOP);
    // These are under way when it turns out; the broker may have them as well.
    let first: Vec<_> = (1..20)
        .map(|number| {
            let (http, address) = (client(), service.address());
            tokio::spawn(async move {
                let ack = if number % 2 == 0 {
                    "committed"
                } else {
                    "durable"
                };
                post_to(&http, address, &body(number, EVENTS), ack).await
            })
        })
        .collect();
    for sent in first {
        assert_spooled(&sent.await.unwrap().unwrap());
    }
    for number in 20..40 {
        assert_spooled(&service.post(&body(number, EVENTS), "durable").await);
    }
    broker.node(0).signal(Signal::CONT);
    let all = whole(40 * EVENTS);
    eventually("all rows", async || rows(&database).await >= all).await;
    eventually("that nothing is left", async || {
        readiness(&service).await["status"] == "ready"
    })
    .await;
    assert!(service.stop());
    assert_eq!(rows(&database).await, all);
    // A start with a file that says nothing sends what is left of the directory again.
    std::fs::write(folder.path().join("fallback.positions"), "?").unwrap();
    let service = serve(&broker, &database, "frozen", folder.path(), "false");
    service.wait_for("the file is damaged");
    let sent = service.post(&body(40, EVENTS), "committed").await;
    assert_eq!(sent.body["ack"], "committed", "{:?}", sent.body);
    assert!(service.stop());
    assert_eq!(rows(&database).await, all + whole(EVENTS));
    assert_verified(&database);
}
