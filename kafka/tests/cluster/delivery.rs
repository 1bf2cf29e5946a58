//! From intake over the broker and the writers to the table: each event once, and answers that are
//! true.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Database, Process, assert_verified, body, broker, eventually, one};

/// Events of a body.
const EVENTS: usize = 10;

async fn rows(database: &Database) -> i64 {
    database.count("interaction_events").await
}

/// Rows that the ledger counts, as stored and as duplicates.
async fn ledger(database: &Database) -> (i64, i64) {
    let client = database.connect().await;
    let sum =
        |column: &str| format!("SELECT coalesce(sum({column}), 0)::bigint FROM ingest_ledger");
    (
        one(&client, &sum("stored")).await,
        one(&client, &sum("duplicates")).await,
    )
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_what_became_of_the_events_over_two_processes() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let writer = Process::serve(&broker, &database, "answers", "writer");
    let intake = Process::serve(&broker, &database, "answers", "intake");
    let sent = intake.post(&body(0, EVENTS), "committed").await;
    assert_eq!(sent.status, 200, "{:?}\n{}", sent.body, intake.log());
    assert_eq!(sent.body["ack"], "committed", "{:?}", sent.body);
    assert_eq!(sent.body["committed"], EVENTS, "{:?}", sent.body);
    // The same events again are duplicates, which a watermark could not tell.
    let again = intake.post(&body(0, EVENTS + 1), "committed").await;
    assert_eq!(again.body["duplicates"], EVENTS, "{:?}", again.body);
    assert_eq!(again.body["committed"], 1, "{:?}", again.body);
    let durable = intake.post(&body(1, EVENTS), "durable").await;
    assert_eq!(durable.body["ack"], "durable", "{:?}", durable.body);
    eventually("the rows", async || {
        rows(&database).await == whole(2 * EVENTS + 1)
    })
    .await;
    // A writer takes no events, and an intake without a writer stores none.
    let refused = writer.post(&body(2, 1), "durable").await;
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (503, &Value::from("log_away")),
        "{:?}",
        refused.body
    );
    assert!(writer.stop());
    assert!(intake.stop());
    assert_eq!(
        ledger(&database).await,
        (whole(2 * EVENTS + 1), whole(EVENTS))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_stored_once_over_kills_of_the_writer() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let intake = Process::serve(&broker, &database, "kills", "intake");
    let mut sent = 0;
    for round in 0..4 {
        let writer = Process::serve(&broker, &database, "kills", "writer");
        let before = rows(&database).await;
        for _ in 0..40 {
            let answer = intake.post(&body(sent, EVENTS), "durable").await;
            assert_eq!(answer.status, 202, "{:?}", answer.body);
            sent += 1;
        }
        // In the middle of its work.
        eventually("the first rows", async || rows(&database).await > before).await;
        if round < 3 {
            writer.kill();
            continue;
        }
        let expected = whole(sent * EVENTS);
        eventually("all rows", async || rows(&database).await >= expected).await;
        assert!(writer.stop());
    }
    let expected = whole(sent * EVENTS);
    assert_eq!(rows(&database).await, expected);
    assert_eq!(ledger(&database).await, (expected, 0));
    assert_verified(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_intake_has_answered_as_durable_outlives_its_machine_and_its_disk() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let bodies = 20;
    let lost = Process::serve(&broker, &database, "machine", "intake");
    for number in 0..bodies {
        let answer = lost.post(&body(number, EVENTS), "durable").await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
    }
    assert_eq!(rows(&database).await, 0, "nothing is stored yet");
    // With its directory.
    lost.kill();
    let service = Process::serve(&broker, &database, "machine", "all");
    let answer = service.post(&body(bodies, EVENTS), "committed").await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let expected = whole((bodies + 1) * EVENTS);
    eventually("all rows", async || rows(&database).await == expected).await;
    assert!(service.stop());
    assert_eq!(ledger(&database).await, (expected, 0));
    assert_verified(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_takes_over_from_one_that_is_killed_and_from_one_that_is_frozen() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let intake = Process::serve(&broker, &database, "leases", "intake");
    let first = Process::serve(&broker, &database, "leases", "writer");
    let client = database.connect().await;
    let holders =
        "SELECT count(DISTINCT reader) FROM ingest_leases WHERE until > clock_timestamp()";
    let held = "SELECT count(*) FROM ingest_leases WHERE until > clock_timestamp()";
    eventually("all leases", async || one::<i64>(&client, held).await == 6).await;
    let second = Process::serve(&broker, &database, "leases", "writer");
    eventually("a share for each", async || {
        one::<i64>(&client, holders).await == 2 && one::<i64>(&client, held).await == 6
    })
    .await;
    let mut sent = 0;
    let mut post = async |ack: &str| {
        let answer = intake.post(&body(sent, EVENTS), ack).await;
        let status = if ack == "committed" { 200 } else { 202 };
        assert_eq!(answer.status, status, "{:?}\n{}", answer.body, intake.log());
        assert_eq!(answer.body["ack"], ack, "{:?}", answer.body);
        sent += 1;
        whole(sent * EVENTS)
    };
    post("committed").await;
    // Frozen in the middle of a transaction: its session holds the row of the ledger.
    let locker = database.connect().await;
    let lock = "BEGIN; SELECT FROM ingest_ledger FOR UPDATE";
    locker.batch_execute(lock).await.unwrap();
    for _ in 0..3 {
        post("durable").await;
    }
    let expected = post("durable").await;
    let entering = "SELECT count(*) FROM pg_stat_activity
                     WHERE query LIKE '%UPDATE ingest_ledger%' AND wait_event_type = 'Lock'";
    eventually("a batch of each writer behind the lock", async || {
        one::<i64>(&client, entering).await >= 2
    })
    .await;
    first.signal(Signal::STOP);
    locker.batch_execute("ROLLBACK").await.unwrap();
    let began = Instant::now();
    eventually("the rows of the frozen writer", async || {
        rows(&database).await == expected
    })
    .await;
    eprintln!(
        "taken over from a frozen writer after {:?}",
        began.elapsed()
    );
    // Awake again it finds out, and takes its share.
    first.signal(Signal::CONT);
    eventually("a share for each again", async || {
        one::<i64>(&client, holders).await == 2 && one::<i64>(&client, held).await == 6
    })
    .await;
    second.kill();
    let began = Instant::now();
    for _ in 0..3 {
        post("committed").await;
    }
    let expected = post("committed").await;
    eprintln!(
        "taken over from a killed writer after {:?}",
        began.elapsed()
    );
    assert_eq!(rows(&database).await, expected);
    assert!(first.stop());
    assert_eq!(ledger(&database).await, (expected, 0));
    assert_verified(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_events_are_refused_and_sent_again_they_are_stored_once() {
    let Some(mut broker) = broker().await else {
        return;
    };
    let database = Database::with_tenants().await;
    let service = Process::serve(&broker, &database, "away", "all");
    let sent = service.post(&body(0, EVENTS), "committed").await;
    assert_eq!(sent.status, 200, "{:?}\n{}", sent.body, service.log());
    broker.node(0).kill();
    // The first may wait for the message's timeout, the others are refused before they are read.
    for number in 1..4 {
        let refused = service.post(&body(number, EVENTS), "durable").await;
        assert_eq!(refused.status, 503, "{:?}", refused.body);
        assert_eq!(refused.body["code"], "log_away", "{:?}", refused.body);
        assert!(refused.has_retry_after);
    }
    broker.node(0).run();
    eventually("events to be taken again", async || {
        service.post(&body(9, 1), "durable").await.status == 202
    })
    .await;
    for number in 1..4 {
        let again = service.post(&body(number, EVENTS), "committed").await;
        assert_eq!(again.status, 200, "{:?}\n{}", again.body, service.log());
    }
    eventually("all rows", async || {
        rows(&database).await == whole(4 * EVENTS + 1)
    })
    .await;
    assert!(service.stop());
    assert_verified(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_lost_records_is_read_from_its_beginning() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let service = Process::serve(&broker, &database, "cut", "all");
    for number in 0..4 {
        let answer = service.post(&body(number, EVENTS), "committed").await;
        assert_eq!(answer.body["ack"], "committed", "{:?}", answer.body);
    }
    assert!(service.stop());
    // The partitions end before what the ledger has of them, as after an unclean election; 4 is where
    // they end once there are others.
    database
        .execute("UPDATE ingest_ledger SET settled = 4")
        .await;
    let service = Process::serve(&broker, &database, "cut", "all");
    let again = whole(4 * EVENTS);
    eventually("what is stored is read again", async || {
        ledger(&database).await == (again, again)
    })
    .await;
    for number in 4..24 {
        let answer = service.post(&body(number, EVENTS), "durable").await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
    }
    let all = whole(24 * EVENTS);
    eventually("all rows", async || rows(&database).await == all).await;
    assert!(service.stop());
    assert_eq!(ledger(&database).await, (all, again));
    assert_verified(&database);
}
