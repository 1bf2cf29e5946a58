//! Kills, freezes and cuts of brokers, intakes, writers and PostgreSQL in turn, under load: each event
//! that was acknowledged is stored once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Brokers, Cluster, Database, Postgres, Process, Proxy, assert_verified, blocking, body, client,
    eventually, number, one, post_to,
};

/// Events of a body.
const EVENTS: usize = 50;

/// Connections that post.
const SENDERS: usize = 4;

/// How long a fault lasts: longer than a lease.
const LASTS: Duration = Duration::from_secs(5);

/// A request without an answer is repeated at the other intake.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest time without an acknowledged event: elections of leaders, restarts.
const SILENCE_MAX: Duration = Duration::from_secs(180);

const LOG: &str = "faults";

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Part {
    Broker,
    Intake,
    Writer,
    Postgres,
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
enum How {
    /// SIGKILL, and a start afterwards. An intake's disk is gone.
    Kill,
    /// SIGSTOP, and SIGCONT afterwards.
    Freeze,
    /// Nothing that is sent to it arrives, until afterwards.
    Cut,
}

const PARTS: [Part; 4] = [Part::Broker, Part::Intake, Part::Writer, Part::Postgres];
const WAYS: [How; 3] = [How::Kill, How::Freeze, How::Cut];

/// What the senders share.
struct Load {
    intakes: Mutex<Vec<SocketAddr>>,
    next_body: AtomicUsize,
    /// Bodies that were acknowledged.
    acknowledged: AtomicUsize,
    /// Times that a body was sent again.
    repeated: AtomicUsize,
    ends: AtomicBool,
}

/// Everything that can fail.
struct World {
    brokers: Brokers,
    postgres: Cluster,
    database: Database,
    /// In front of PostgreSQL, for each writer.
    wires: Vec<Proxy>,
    intakes: Vec<Process>,
    writers: Vec<Process>,
    load: Arc<Load>,
}

/// `FAULTS` (12), `EVENTS` at least (20000) and `BROKERS` (1) are its variables:
/// `cargo test -p recsys-ingest-kafka --test cluster faults -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn no_fault_in_turn_loses_or_doubles_an_acknowledged_event() {
    let faults = number("FAULTS", 12);
    let events = number("EVENTS", 20_000);
    let count = u16::try_from(number("BROKERS", 1)).unwrap();
    let started = tokio::task::block_in_place(|| Brokers::start("kafka-faults", count));
    let Some(brokers) = started else { return };
    let mut world = World::start(brokers).await;
    let load = Arc::clone(&world.load);
    let senders = (0..SENDERS).map(|sender| tokio::spawn(send(Arc::clone(&load), sender)));
    let senders: Vec<_> = senders.collect();

    // One more share of the load for what is calm before.
    let share = events.div_ceil(EVENTS).div_ceil(faults + 1).max(1);
    let calm = load.wait_for(share).await;
    eprintln!("calm: {calm:.0} events/s");
    let mut slowest = f64::MAX;
    for at in 0..faults {
        let (part, how) = (PARTS[at % 4], WAYS[at / 4 % 3]);
        let which = at / 12;
        let (before, began) = (load.bodies(), Instant::now());
        world.begin(part, how, which).await;
        tokio::time::sleep(LASTS).await;
        world.end(part, how, which).await;
        let during = load.bodies() - before;
        // The first one may take as long as an election.
        load.wait_for(1).await;
        let again = began.elapsed();
        let rate = load.wait_for(share).await;
        slowest = slowest.min(rate);
        eprintln!(
            "fault {}: {how:?} {part:?} {which}: {} events during it, acknowledged again {:.1} s after it began, then {rate:.0} events/s ({:.2} of calm)",
            at + 1,
            during * EVENTS,
            again.as_secs_f64(),
            rate / calm
        );
    }
    load.ends.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    world.check(faults, slowest / calm).await;
}

impl World {
    async fn start(brokers: Brokers) -> Self {
        let postgres = tokio::task::block_in_place(|| {
            Cluster::start(&[("max_connections", "200"), ("max_wal_size", "4GB")])
        });
        let database = Database::on(&postgres).await;
        let mut wires = Vec::new();
        for _ in 0..2 {
            wires.push(Proxy::start(&postgres).await);
        }
        let serve = |role: &str, url: &str| {
            tokio::task::block_in_place(|| Process::serve_at(&brokers, url, LOG, role))
        };
        let writers = wires
            .iter()
            .map(|wire| serve("writer", &wire.url(database.url())));
        let writers = writers.collect();
        let intakes: Vec<_> = (0..2).map(|_| serve("intake", database.url())).collect();
        let load = Load {
            intakes: Mutex::new(intakes.iter().map(Process::address).collect()),
            next_body: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            repeated: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
        };
        Self {
            brokers,
            postgres,
            database,
            wires,
            intakes,
            writers,
            load: Arc::new(load),
        }
    }

    async fn begin(&mut self, part: Part, how: How, which: usize) {
        match (part, how) {
            (Part::Broker, How::Kill) => self.brokers.node(which).kill(),
            (Part::Broker, How::Freeze) => self.brokers.node(which).signal(Signal::STOP),
            (Part::Broker, How::Cut) => self.brokers.node(which).cut(true),
            (Part::Intake, How::Kill) => self.intakes.remove(which % 2).kill(),
            (Part::Intake, How::Freeze) => self.intakes[which % 2].signal(Signal::STOP),
            (Part::Intake, How::Cut) => self.intakes[which % 2].cut(true),
            (Part::Writer, How::Kill) => self.writers.remove(which % 2).kill(),
            (Part::Writer, How::Freeze) => self.writers[which % 2].signal(Signal::STOP),
            (Part::Writer, How::Cut) => self.wires[which % 2].set(Postgres::BlackHole),
            (Part::Postgres, How::Kill) => {
                let postgres = &mut self.postgres;
                tokio::task::block_in_place(|| blocking(|| postgres.crash()));
            }
            (Part::Postgres, How::Freeze) => self.postgres.suspend(),
            (Part::Postgres, How::Cut) => {
                for wire in &self.wires {
                    wire.set(Postgres::Reset);
                }
            }
        }
    }

    async fn end(&mut self, part: Part, how: How, which: usize) {
        match (part, how) {
            (Part::Broker, How::Kill) => {
                tokio::task::block_in_place(|| self.brokers.node(which).run());
            }
            (Part::Broker, How::Freeze) => self.brokers.node(which).signal(Signal::CONT),
            (Part::Broker, How::Cut) => self.brokers.node(which).cut(false),
            (Part::Intake, How::Kill) => {
                let serve = || Process::serve_at(&self.brokers, self.database.url(), LOG, "intake");
                let intake = tokio::task::block_in_place(serve);
                self.load.intakes.lock().unwrap()[which % 2] = intake.address();
                self.intakes.insert(which % 2, intake);
            }
            (Part::Intake, How::Freeze) => self.intakes[which % 2].signal(Signal::CONT),
            (Part::Intake, How::Cut) => self.intakes[which % 2].cut(false),
            (Part::Writer, How::Kill) => {
                let url = self.wires[which % 2].url(self.database.url());
                let serve = || Process::serve_at(&self.brokers, &url, LOG, "writer");
                let writer = tokio::task::block_in_place(serve);
                self.writers.insert(which % 2, writer);
            }
            (Part::Writer, How::Freeze) => self.writers[which % 2].signal(Signal::CONT),
            (Part::Writer, How::Cut) => self.wires[which % 2].set(Postgres::Pass),
            (Part::Postgres, How::Kill) => {
                let postgres = &mut self.postgres;
                tokio::task::block_in_place(|| blocking(|| postgres.restart()));
            }
            (Part::Postgres, How::Freeze) => self.postgres.resume(),
            (Part::Postgres, How::Cut) => {
                for wire in &self.wires {
                    wire.set(Postgres::Pass);
                }
            }
        }
    }

    /// All that was acknowledged is there, once: a body is sent until it is.
    async fn check(self, faults: usize, slowest: f64) {
        let sent = i64::try_from(self.load.bodies() * EVENTS).unwrap();
        let client = self.database.connect().await;
        let rows = "SELECT count(*) FROM interaction_events";
        eventually("all rows", async || one::<i64>(&client, rows).await >= sent).await;
        for process in self.intakes.into_iter().chain(self.writers) {
            assert!(process.stop());
        }
        let found: i64 = one(&client, rows).await;
        // The key has the time and an id that is made of the event's name, so it can be there once;
        // that the ledger counts as many shows that none was stored by two writers.
        let stored: i64 = one(
            &client,
            "SELECT coalesce(sum(stored), 0)::bigint FROM ingest_ledger",
        )
        .await;
        let missing = sent - found;
        let repeated = self.load.repeated.load(Ordering::Relaxed);
        eprintln!(
            "{faults} faults, {sent} events acknowledged ({repeated} bodies repeated): {missing} missing, {} twice; slowest share {slowest:.2} of calm",
            stored - found
        );
        assert_eq!((found, stored), (sent, sent));
        assert_verified(&self.database);
    }
}

impl Load {
    fn bodies(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for this many further bodies to be acknowledged; returns the events a second.
    async fn wait_for(&self, bodies: usize) -> f64 {
        let (first, began) = (self.bodies(), Instant::now());
        let (mut last, mut since) = (first, began);
        while self.bodies() < first + bodies {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.bodies() > last {
                (last, since) = (self.bodies(), Instant::now());
            }
            assert!(since.elapsed() < SILENCE_MAX, "no event is acknowledged");
        }
        let events = u32::try_from((self.bodies() - first) * EVENTS).unwrap();
        f64::from(events) / began.elapsed().as_secs_f64()
    }
}

/// Posts bodies one after the other, each at one intake and the other in turn until it is
/// acknowledged; each second sender as committed, as far as there is a verdict in time.
async fn send(load: Arc<Load>, sender: usize) {
    let http = client();
    let ack = match sender.is_multiple_of(2) {
        true => "durable",
        false => "committed",
    };
    let mut at = sender;
    while !load.ends.load(Ordering::Relaxed) {
        let number = load.next_body.fetch_add(1, Ordering::Relaxed);
        let body = body(number, EVENTS);
        loop {
            let intake = load.intakes.lock().unwrap()[at % 2];
            let posting = post_to(&http, intake, &body, ack);
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, posting).await {
                if matches!(answer.status, 200 | 202) {
                    if answer.body["ack"] == "committed" {
                        let count = |what: &str| answer.body[what].as_u64().unwrap_or(0);
                        let told = count("committed") + count("duplicates");
                        assert_eq!(told, EVENTS as u64, "{:?}", answer.body);
                    }
                    break;
                }
                assert_eq!(answer.status, 503, "{:?}", answer.body);
            }
            at += 1;
            load.repeated.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        load.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
