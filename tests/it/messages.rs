//! Promise: whichever message of the exchange that stores a batch is lost, refused or late, a
//! committed event is in the table once, and a durable event gets there.

use std::time::Duration;

use crate::harness::{Cluster, Fault, Relay, Rig, Step, click, eventually};

const STEPS: [Step; 5] = [
    Step::Begin,
    Step::Copy,
    Step::Rows,
    Step::Entry,
    Step::Commit,
];

/// A rig behind a relay; its partitions exist.
async fn behind_relay() -> (Rig, Relay) {
    let cluster = Cluster::start(&[("autovacuum", "off")]);
    let relay = Relay::start(&cluster);
    let url = relay.url(&cluster.url("recsys"));
    let rig = Rig::on(cluster, |settings| {
        settings
            .with("--database-url", url)
            .with("--writers", 1)
            .with("--commit-timeout", "150s")
    })
    .await;
    let reply = rig.client.query("ack=committed");
    let reply = reply.post("/v1/interactions", &click("first")).await;
    assert_eq!(reply.settled().0, 1);
    (rig, relay)
}

/// Applies a fault to a step while events arrive; each event is stored once.
async fn strike(rig: &Rig, relay: &Relay, step: Step, fault: Fault) {
    let before = rig.database.count("interaction_events").await;
    let hits = relay.hits();
    relay.plan(step, fault);
    let durable = rig.client.query("ack=durable");
    let committed = rig.client.query("ack=committed");
    for n in 0..2 {
        let name = format!("{step:?} {fault:?} durable {n}");
        let reply = durable.post("/v1/interactions", &click(&name)).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    }
    for n in 0..3 {
        let name = format!("{step:?} {fault:?} committed {n}");
        let reply = committed.post("/v1/interactions", &click(&name)).await;
        let (stored, duplicates, ..) = reply.settled();
        assert_eq!(stored + duplicates, 1, "{}", reply.text);
        let sql = "interaction_events";
        let id = crate::harness::uuid_of(crate::harness::DEMO, &name);
        let found = rig
            .database
            .count(&format!("{sql} WHERE event_id = '{id}'"))
            .await;
        assert_eq!(found, 1, "{name}");
    }
    assert_eq!(relay.hits(), hits + 1, "{step:?} {fault:?} did not happen");
    rig.settle().await;
    let stored = rig.database.count("interaction_events").await;
    assert_eq!(stored, before + 5, "{step:?} {fault:?}");
    // `verify` runs as a process and blocks this thread.
    tokio::task::block_in_place(|| rig.settings.assert_verified());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_batch_may_be_refused_late_or_the_last_of_its_connection() {
    let (rig, relay) = behind_relay().await;
    let late = Duration::from_millis(300);
    for step in STEPS {
        for fault in [
            Fault::Refuse,
            Fault::Delay(late),
            Fault::AnswerLate(late),
            Fault::CutBefore,
            Fault::CutAfter,
        ] {
            strike(&rig, &relay, step, fault).await;
        }
    }
    // Without its BEGIN, neither the rows nor the ledger's row may commit.
    strike(&rig, &relay, Step::Begin, Fault::Lose).await;
    eventually("ready", async || rig.ready().await.1 == "ready").await;
    // No duplicates: no row was committed without the ledger's row.
    assert_eq!(rig.rows().await[2], 0);
}

/// Each message is lost, and each answer, while the connection stays open: the service gives up
/// on it after a minute. Runs three cases at once: `cargo test --test it -- --ignored messages`.
// Starting a service blocks its thread, and other cases run at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
#[ignore = "takes five minutes"]
async fn each_message_of_a_batch_and_each_answer_may_be_lost() {
    let mut cases = tokio::task::JoinSet::new();
    for step in STEPS {
        for fault in [Fault::Lose, Fault::LoseAnswer] {
            if (step, fault) == (Step::Copy, Fault::LoseAnswer) {
                continue; // A COPY has one answer, at the end of its rows.
            }
            if cases.len() == 3 {
                cases.join_next().await.unwrap().unwrap();
            }
            cases.spawn(async move {
                let (rig, relay) = behind_relay().await;
                strike(&rig, &relay, step, fault).await;
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}
