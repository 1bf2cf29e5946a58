//! A process that has many partitions: it stores all of them, and holds little of them in memory.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::harness::{Brokers, Database, Process, assert_verified};
use crate::harness::{body, broker, eventually, one};

/// More than a process reads at the same time.
const PARTITIONS: &str = "16";

const TOPIC_PARTITIONS: i32 = 16;

/// What a process may have in memory: the writer alone, in a debug build.
const MEMORY_MAX_KIB: u64 = 220 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn partitions_beyond_those_that_are_read_at_once_take_turns() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let many = [("--kafka-partitions", PARTITIONS)];
    let serve = |role: &str| Process::serve_with(&broker, database.url(), "turns", role, &many);
    let intake = serve("intake");
    let (bodies, events) = (160, 10);
    for number in 0..bodies {
        let sent = intake.post(&body(number, events), "durable").await;
        assert_eq!(sent.status, 202, "{:?}", sent.body);
    }
    let writer = serve("writer");
    let mut expected = i64::try_from(bodies * events).unwrap();
    eventually("all rows", async || {
        database.count("interaction_events").await == expected
    })
    .await;
    // One after the other, each in another partition.
    for number in bodies..bodies + 20 {
        let sent = intake.post(&body(number, events), "committed").await;
        assert_eq!(sent.status, 200, "{:?}\n{}", sent.body, writer.log());
        assert_eq!(sent.body["ack"], "committed", "{:?}", sent.body);
        expected += i64::try_from(events).unwrap();
    }
    assert_eq!(database.count("interaction_events").await, expected);
    assert!(writer.stop());
    assert!(intake.stop());
    let client = database.connect().await;
    let counted = "SELECT concat_ws(' ', sum(stored), sum(duplicates)) FROM ingest_ledger";
    assert_eq!(
        one::<String>(&client, counted).await,
        format!("{expected} 0")
    );
    assert_verified(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_does_not_get_on_holds_little_of_its_partitions_in_memory() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let many = [("--kafka-partitions", PARTITIONS)];
    let serve = |role: &str| Process::serve_with(&broker, database.url(), "memory", role, &many);
    let service = serve("all");
    let sent = service.post(&body(0, 2000), "committed").await;
    assert_eq!(sent.status, 200, "{:?}", sent.body);
    assert!(service.stop());
    fill(&broker, "memory.interactions", 14 << 20).await;
    let locker = database.connect().await;
    let lock = "BEGIN; LOCK TABLE interaction_events IN EXCLUSIVE MODE";
    locker.batch_execute(lock).await.unwrap();
    let writer = serve("writer");
    let client = database.connect().await;
    let stuck = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("stores behind the lock", async || {
        one::<i64>(&client, stuck).await > 0
    })
    .await;
    let (mut before, mut now) = (0, memory(&writer));
    while now != before {
        tokio::time::sleep(Duration::from_secs(3)).await;
        (before, now) = (now, memory(&writer));
    }
    eprintln!("the writer took {} MiB", now >> 10);
    assert!(now < MEMORY_MAX_KIB, "{now} KiB");
    writer.kill();
}

/// The most memory that a process has had, in KiB.
fn memory(process: &Process) -> u64 {
    let path = format!("/proc/{}/status", process.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.unwrap().split_whitespace().next();
    words.unwrap().parse().unwrap()
}

/// Fills each partition of a topic with at least `bytes` of copies of the first message found in it.
async fn fill(brokers: &Brokers, topic: &str, bytes: usize) {
    let message = first_of(brokers, topic).await;
    let payload = message.payload().unwrap();
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers.address())
        .create()
        .unwrap();
    for _ in 0..bytes.div_ceil(payload.len()) {
        let sent = (0..TOPIC_PARTITIONS).map(|partition| {
            let record = FutureRecord::<(), [u8]>::to(topic)
                .partition(partition)
                .payload(payload)
                .headers(message.headers().unwrap().clone());
            producer.send(record, Duration::from_secs(60))
        });
        for sent in futures_util::future::join_all(sent).await {
            sent.unwrap();
        }
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

async fn first_of(brokers: &Brokers, topic: &str) -> OwnedMessage {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers.address())
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..TOPIC_PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&all).unwrap();
    consumer.recv().await.unwrap().detach()
}
