//! What a message carries, and how large it may be.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use recsys_ingest::tenants::role::Role;
use rustix::process::Signal;

use crate::harness::{Brokers, Database, Process, Sent, assert_verified};
use crate::harness::{body, broker, client, eventually, key, post_to};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Events of a small body.
const EVENTS: usize = 10;

/// Small bodies that are posted at the same time: of all of them, a partition's share is several times
/// the limit.
const AT_ONCE: usize = 60;

/// The limit of the topic, as it is lowered.
const LOWERED: &str = "20000";

#[tokio::test(flavor = "multi_thread")]
async fn the_writers_log_names_the_traces_of_the_requests_that_it_stores() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let debug = [("--log-level", "debug")];
    let writer = Process::serve_with(&broker, database.url(), "traces", "writer", &debug);
    let intake = Process::serve(&broker, &database, "traces", "intake");
    let untraced = intake.post(&body(0, 1), "committed").await;
    assert_eq!(untraced.status, 200, "{:?}", untraced.body);
    assert!(!writer.log().contains("stored a batch"), "it has no trace");
    let traced = client()
        .post(format!(
            "http://{}/v1/interactions?ack=committed",
            intake.address()
        ))
        .header("x-api-key", key("demo", Role::Ingest))
        .header("traceparent", TRACE)
        .json(&body(1, 1))
        .send()
        .await
        .unwrap();
    assert_eq!(traced.status(), 200);
    let line = writer.wait_for("stored a batch");
    assert_eq!(line["span"]["traces"], TRACE, "{line}");
    assert_eq!(line["span"]["table"], "interaction_events", "{line}");
    assert!(writer.stop());
    assert!(intake.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_request_that_is_itself_too_large_for_the_topic_is_answered_413() {
    let Some(mut broker) = broker().await else {
        return;
    };
    let database = Database::with_tenants().await;
    let service = Process::serve(&broker, &database, "limits", "all");
    let first = service.post(&body(0, EVENTS), "committed").await;
    assert_eq!(first.status, 200, "{:?}\n{}", first.body, service.log());
    lower(&broker, "limits.interactions").await;
    // The library makes a batch of what waits, and the broker refuses it as a whole. On a busy machine
    // too little may wait by then, and the next ones are for it.
    let (mut next, mut refused) = (1, 0);
    while refused == 0 {
        assert!(next < 5 * AT_ONCE, "no batch was too large");
        for (number, sent) in at_once(&mut broker, &service, next).await {
            if sent.status == 503 {
                assert_eq!(sent.body["code"], "log_away", "{:?}", sent.body);
                let detail = sent.body["detail"].as_str().unwrap();
                assert!(detail.contains("limit on messages was lowered"), "{detail}");
                assert!(sent.has_retry_after);
                refused += 1;
                let again = body(number, EVENTS);
                eventually("a request to be taken", async || {
                    service.post(&again, "durable").await.status == 202
                })
                .await;
            } else {
                assert_eq!(sent.status, 202, "{:?}", sent.body);
            }
        }
        next += AT_ONCE;
    }
    service.wait_for("max.message.bytes of the topics was changed");
    // Now batches fit.
    for (_, sent) in at_once(&mut broker, &service, next).await {
        assert_eq!(sent.status, 202, "{:?}", sent.body);
    }
    next += AT_ONCE;
    let large = service.post(&body(next, 400), "durable").await;
    assert_eq!(large.status, 413, "{:?}", large.body);
    assert_eq!(large.body["code"], "body_too_large", "{:?}", large.body);
    let fits = large.body["events_that_fit"].as_u64().unwrap();
    assert!((1..400).contains(&fits), "{:?}", large.body);
    let fits = usize::try_from(fits).unwrap();
    let part = service.post(&body(next, fits), "durable").await;
    assert_eq!(part.status, 202, "{:?}", part.body);
    let expected = i64::try_from(next * EVENTS + fits).unwrap();
    eventually("all rows", async || {
        database.count("interaction_events").await == expected
    })
    .await;
    assert!(service.stop());
    assert_verified(&database);
}

/// Lowers the limit on messages of a topic.
async fn lower(brokers: &Brokers, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers.address())
        .create()
        .unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = change.set("max.message.bytes", LOWERED);
    let changed = admin.alter_configs(&[change], &AdminOptions::new()).await;
    assert!(changed.unwrap().iter().all(Result::is_ok));
    // Until the broker goes by it.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Posts small bodies from this number on while the broker is frozen, and what is answered once it is not.
async fn at_once(brokers: &mut Brokers, service: &Process, from: usize) -> Vec<(usize, Sent)> {
    brokers.node(0).signal(Signal::STOP);
    let (http, address) = (client(), service.address());
    let posts: Vec<_> = (from..from + AT_ONCE)
        .map(|number| {
            let http = http.clone();
            tokio::spawn(async move {
                let sent = post_to(&http, address, &body(number, EVENTS), "durable").await;
                (number, sent.unwrap())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    brokers.node(0).signal(Signal::CONT);
    let mut answers = Vec::new();
    for post in posts {
        answers.push(post.await.unwrap());
    }
    answers
}
