//! Promise: several writers of one log store and count each event once, whichever has the lease of a
//! stream, and whichever still believes that it has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt as _;
use recsys_ingest::accounts::ledger::Stream;
use recsys_ingest::admission::record::{InMemory, Record};
use recsys_ingest::config::Serve;
use recsys_ingest::event::result::RecordResult;
use recsys_ingest::event::table::Table;
use recsys_ingest::log::append::{Append, Capacity, StreamUsage, Usage};
use recsys_ingest::log::read::{Acknowledge, Next, Proof, Read, Start};
use recsys_ingest::log::record::{AppendError, Delivered};
use recsys_ingest::service::engine::{Engine, Lanes, Opened};
use uuid::Uuid;

use crate::harness::{Database, Service, Settings, click, eventually, one};

/// Streams of each table.
const STREAMS: u16 = 2;

/// How many streams each service has, in no order.
const SHARES: &str = "SELECT coalesce(string_agg(streams::text, ' '), '')
    FROM (SELECT count(*) AS streams FROM ingest_leases GROUP BY reader) AS shares";

/// Items and payload of each record of a stream.
type Appended = Vec<(u32, Bytes)>;

/// A log in memory that all services of a test share. What is appended stays.
#[derive(Clone, Debug)]
struct SharedLog {
    id: Uuid,
    streams: Arc<Vec<Mutex<Appended>>>,
}

struct Appender {
    log: SharedLog,
    entries: flume::Receiver<Record>,
}

struct Reader {
    log: SharedLog,
    stream: u16,
    next: usize,
    acks: Arc<Acks>,
}

#[derive(Debug)]
struct Acks {
    log: Uuid,
    opening: Uuid,
    delivered: Mutex<VecDeque<u64>>,
}

impl SharedLog {
    fn new() -> Self {
        let streams = usize::from(STREAMS) * Table::ALL.len();
        Self {
            id: Uuid::new_v4(),
            streams: Arc::new((0..streams).map(|_| Mutex::default()).collect()),
        }
    }

    fn streams(&self) -> Vec<Stream> {
        let tables = (0..).zip(Table::ALL);
        tables
            .flat_map(|(at, table)| (0..STREAMS).map(move |shard| (at, shard, table)))
            .map(|(at, shard, table): (u16, u16, Table)| Stream {
                log: self.id,
                lineage: Uuid::nil(),
                number: at * STREAMS + shard,
                shard,
                table,
            })
            .collect()
    }
}

impl Engine for SharedLog {
    type Appender = Appender;
    type Reader = Reader;

    fn check(&self, _config: &Serve) -> anyhow::Result<()> {
        Ok(())
    }

    async fn open(
        self,
        _config: &Serve,
        entries: flume::Receiver<Record>,
    ) -> anyhow::Result<Opened<Appender, Reader>> {
        let log = self.clone();
        let open = move |stream: &Stream| {
            let acks = Arc::new(Acks {
                log: log.id,
                opening: Uuid::new_v4(),
                delivered: Mutex::default(),
            });
            let reader = Reader {
                log: log.clone(),
                stream: stream.number,
                next: 0,
                acks: Arc::clone(&acks),
            };
            let acks: Arc<dyn Acknowledge> = acks;
            (reader, acks)
        };
        Ok(Opened {
            capacity: Arc::new(self.clone()),
            appender: Appender {
                log: self.clone(),
                entries,
            },
            freed_bytes: 1,
            lanes: Lanes::Shared {
                streams: self.streams(),
                at_once: 2,
                open: Arc::new(open),
            },
            stores: true,
            helpers: Vec::new(),
            finish: Box::new(|| ()),
        })
    }
}

impl Append for Appender {
    fn run(self) {
        while let Ok(record) = self.entries.recv() {
            let first = record.memory.rows.table() as u16 * STREAMS;
            let stream = first + rand::rng().random_range(0..STREAMS);
            let mut records = self.log.streams[usize::from(stream)].lock().unwrap();
            records.push((record.items, record.payload));
            if let Some(durable) = record.durable {
                durable.send(Ok(())).ok();
            }
        }
    }
}

impl Capacity for SharedLog {
    fn id(&self) -> Uuid {
        self.id
    }

    fn lineage(&self) -> Uuid {
        Uuid::nil()
    }

    fn medium(&self) -> &'static str {
        "memory"
    }

    fn payload_bytes_max(&self) -> usize {
        1 << 20
    }

    fn has_room(&self, _payload_bytes: usize) -> Result<(), AppendError> {
        Ok(())
    }

    fn room(&self) -> (u64, u64) {
        (u64::MAX, u64::MAX)
    }

    fn shortage(&self) -> Option<String> {
        None
    }

    fn stalled(&self) -> Option<Duration> {
        None
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn usage_of(&self, _log: Uuid, _stream: u16) -> StreamUsage {
        StreamUsage::default()
    }
}

impl Read<InMemory, RecordResult> for Reader {
    fn start(&mut self, start: &Start) -> bool {
        self.next = usize::try_from(start.watermark).unwrap();
        true
    }

    fn try_next(&mut self) -> Next<InMemory, RecordResult> {
        let records = self.log.streams[usize::from(self.stream)].lock().unwrap();
        // Batches of different processes end at different records.
        let Some((items, payload)) = records.get(self.next).filter(|_| rand::random_ratio(3, 4))
        else {
            return Next::Empty;
        };
        self.next += 1;
        let sequence = self.next as u64;
        self.acks.delivered.lock().unwrap().push_back(sequence);
        Next::Record(Delivered {
            sequence,
            items: *items,
            payload: payload.clone(),
            memory: None,
            result: None,
        })
    }

    async fn wait(&mut self) {
        let pause = Duration::from_micros(rand::rng().random_range(0..2000));
        tokio::time::sleep(pause).await;
    }

    fn fetch(
        &mut self,
        _bytes_max: usize,
    ) -> anyhow::Result<Vec<Delivered<Option<InMemory>, RecordResult>>> {
        Ok(Vec::new())
    }

    async fn abandon(self) {}
}

impl Acknowledge for Acks {
    fn id(&self) -> Uuid {
        self.log
    }

    fn lineage(&self) -> Uuid {
        Uuid::nil()
    }

    fn opening(&self) -> Uuid {
        self.opening
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn inherited(&self, _stream: u16) -> u64 {
        0
    }

    fn passed(&self, _stream: u16) -> u64 {
        0
    }

    fn proof(&self, _stream: u16, _by: Option<Uuid>, _watermark: u64) -> Proof {
        Proof::UpToWatermark
    }

    fn delivered(&self, _stream: u16, sequence: u64) -> usize {
        let delivered = self.delivered.lock().unwrap();
        delivered.iter().filter(|at| **at <= sequence).count()
    }

    fn ack(&self, _stream: u16, sequence: u64) {
        let mut delivered = self.delivered.lock().unwrap();
        delivered.retain(|at| *at > sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_lose_their_leases_all_the_time_store_and_count_each_event_once() {
    lease_storm(30).await;
}

/// Minutes long: `cargo test --test it a_thousand_take_overs -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_thousand_take_overs_store_and_count_each_event_once() {
    lease_storm(1000).await;
}

/// A record that no writer can read stops its stream, and its lease can still move.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_cannot_read_a_record_gives_its_lease_back() {
    let database = Database::with_tenants().await;
    let log = SharedLog::new();
    let unreadable = (1, Bytes::from_static(b"not rows"));
    for stream in log.streams.iter() {
        stream.lock().unwrap().push(unreadable.clone());
    }
    let first = Service::on_log(log.clone(), &database, |settings| settings).await;
    let client = database.connect().await;
    let shared = async |expected: &str| {
        eventually("the shares", async || {
            one::<String>(&client, SHARES).await == expected
        })
        .await;
    };
    shared("6").await;
    let started = "SELECT count(*) FROM ingest_ledger WHERE opening IS NOT NULL";
    eventually("all lanes", async || {
        one::<i64>(&client, started).await == 6
    })
    .await;
    eventually("that it is said", async || {
        first.client().get("/readyz").await.json["status"] != "ready"
    })
    .await;
    let second = Service::on_log(log.clone(), &database, |settings| settings).await;
    shared("3 3").await;
    first.stop().await.unwrap();
    shared("6").await;
    second.stop().await.unwrap();
    shared("").await;
}

/// A store that does not end keeps no lease: another writer may reach what this one cannot.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_store_does_not_end_gives_its_lease_back() {
    let database = Database::with_tenants().await;
    let log = SharedLog::new();
    let durable = |settings: Settings| settings.with("--default-ack", "durable");
    let first = Service::on_log(log.clone(), &database, durable).await;
    let client = database.connect().await;
    let shared = async |expected: &str| {
        eventually("the shares", async || {
            one::<String>(&client, SHARES).await == expected
        })
        .await;
    };
    shared("6").await;
    let started = "SELECT count(*) FROM ingest_ledger WHERE opening IS NOT NULL";
    eventually("all lanes", async || {
        one::<i64>(&client, started).await == 6
    })
    .await;
    // With it the partition is there.
    let reply = first.interactions(&click("0")).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    let rows = "SELECT count(*) FROM interaction_events";
    eventually("the first row", async || {
        one::<i64>(&client, rows).await == 1
    })
    .await;
    let locker = database.connect().await;
    let lock = "BEGIN; LOCK TABLE interaction_events IN EXCLUSIVE MODE";
    locker.batch_execute(lock).await.unwrap();
    // Each record goes to one of the table's two streams.
    let posted = 24;
    for event in 1..posted {
        let reply = first.interactions(&click(&event.to_string())).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    }
    let stuck = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock'
                    AND query LIKE 'COPY%'";
    eventually("stores behind the lock", async || {
        one::<i64>(&client, stuck).await == i64::from(STREAMS)
    })
    .await;
    // One of the streams that do not get on is in the share of the second.
    let second = Service::on_log(log.clone(), &database, durable).await;
    let began = Instant::now();
    shared("3 3").await;
    assert!(began.elapsed() < Duration::from_secs(20), "{began:?}");
    let began = Instant::now();
    let report = first.stop().await.unwrap();
    assert!(report.in_time);
    assert!(began.elapsed() < Duration::from_secs(10), "{began:?}");
    shared("6").await;
    locker.batch_execute("ROLLBACK").await.unwrap();
    eventually("all rows", async || {
        one::<i64>(&client, rows).await == posted
    })
    .await;
    second.stop().await.unwrap();
    let counted = "SELECT concat_ws(' ', sum(stored), sum(duplicates)) FROM ingest_ledger";
    assert_eq!(one::<String>(&client, counted).await, format!("{posted} 0"));
}

/// Posts to two services on one log while leases are lost, until streams changed hands this often.
async fn lease_storm(take_overs: i64) {
    let database = Database::with_tenants().await;
    let log = SharedLog::new();
    let small = |settings: Settings| {
        let settings = settings.with("--default-ack", "durable");
        settings.with("--batch-rows-max", 7)
    };
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(Service::on_log(log.clone(), &database, small).await);
    }
    let client = database.connect().await;
    let held = "SELECT count(*) FROM ingest_leases WHERE until > clock_timestamp()";
    let holders = held.replace("count(*)", "count(DISTINCT reader)");
    let all = i64::from(STREAMS) * 3;
    let shared = async || {
        eventually("a share for each", async || {
            one::<i64>(&client, held).await == all && one::<i64>(&client, &holders).await == 2
        })
        .await;
    };
    shared().await;
    // An epoch is higher by one with each take-over of any stream.
    let epoch = "SELECT max(epoch) FROM ingest_ledger";
    let before: i64 = one(&client, epoch).await;
    let mut posted = 0;
    while one::<i64>(&client, epoch).await < before + take_overs {
        for (service, body) in (0..20).map(|body| (&services[body % 2], body)) {
            let events = (0..3).map(|at| click(&format!("{posted}-{body}-{at}")));
            let reply = service.interactions(&events.collect()).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            posted += 3;
        }
        // Those who had them go on until they find out, and others take them in that time.
        database.execute("DELETE FROM ingest_leases").await;
    }
    let rows = "SELECT count(*) FROM interaction_events";
    eventually("all rows", async || {
        one::<i64>(&client, rows).await >= posted
    })
    .await;
    // Both have a share again, whatever they lost.
    shared().await;
    for service in services {
        service.stop().await.unwrap();
    }
    assert_eq!(one::<i64>(&client, rows).await, posted);
    let counted = "SELECT concat_ws(' ', sum(stored), sum(duplicates), sum(quarantined))
                     FROM ingest_ledger";
    assert_eq!(
        one::<String>(&client, counted).await,
        format!("{posted} 0 0")
    );
    let left = "SELECT count(*) FROM ingest_leases";
    assert_eq!(
        one::<i64>(&client, left).await,
        0,
        "leases are given back at a stop"
    );
}
