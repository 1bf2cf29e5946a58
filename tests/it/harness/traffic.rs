//! Many senders that remember what they were told: half of the delivery tests' oracle.
//!
//! Each sender has a thread and a keep-alive connection, and does what a
//! careful client does: it sends a body again until it is taken. Now and then
//! one gives up instead, so that bodies remain of which nobody knows whether
//! they arrived. Knows nothing of tables; `audit` compares.

mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use recsys_ingest::event::table::Table;

use super::bodies::{Mix, Template};
use wire::Wire;

/// What is sent, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The table that the events are of.
    pub table: Table,
    /// What the query asks for.
    pub ack: &'static str,
    /// Which events.
    pub mix: Mix,
    /// The first body's number.
    pub first: u64,
    /// No more bodies than this; the senders stop by themselves.
    pub bodies: u64,
    /// Senders.
    pub senders: u64,
    /// Bodies a second, all senders together; zero: as fast as they can.
    pub bodies_per_second: u64,
    /// One sender in this many gives a broken request up instead of repeating
    /// it; zero: none does.
    pub abandon_every: u64,
    /// Pause after a refusal. Less than a polite client's: it is to be busy.
    pub pause: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            table: Table::Interactions,
            ack: "durable",
            mix: Mix::Clean,
            first: 0,
            bodies: 1000,
            senders: 8,
            bodies_per_second: 0,
            abandon_every: 4,
            pause: Duration::from_millis(10),
        }
    }
}

/// What the sender of a body knows of it; later words outrank earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Told {
    /// It was never sent.
    Nothing,
    /// It was refused, every time.
    Refused,
    /// It was sent, and the answer did not come.
    Unknown,
    /// It was acknowledged at this level.
    Received,
    /// It was acknowledged at this level.
    Durable,
    /// It was acknowledged at this level.
    Committed,
}

/// Senders at work.
pub struct Traffic {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<Tally>>,
}

/// What senders share.
struct Shared {
    plan: Plan,
    address: Mutex<SocketAddr>,
    told: Vec<AtomicU8>,
    next: AtomicU64,
    acknowledged: AtomicU64,
    stopping: AtomicBool,
    pace: Mutex<Instant>,
    bodies_per_second: AtomicU64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Sent {
    /// What was sent.
    pub plan: Plan,
    /// By body, from the plan's first on.
    pub told: Vec<Told>,
    /// Of all senders.
    pub tally: Tally,
}

/// Numbers of one sender, or of all.
#[derive(Debug, Default)]
pub struct Tally {
    /// How long each refusal took.
    pub refusals: Vec<Duration>,
    /// Refusals that did not say when to come back.
    pub without_retry_after: u64,
    /// Answers that were neither a 2xx nor a 503.
    pub strange: Vec<String>,
    /// Codes of refusals, with how often.
    pub codes: std::collections::BTreeMap<String, u64>,
    /// Connections that broke.
    pub broken: u64,
    /// What answers at `committed` say: new, duplicates, quarantined.
    pub settled: (u64, u64, u64),
}

impl Traffic {
    /// Begins to send to `address`.
    pub fn start(address: SocketAddr, plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            plan,
            address: Mutex::new(address),
            told: (0..plan.bodies).map(|_| AtomicU8::new(0)).collect(),
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            pace: Mutex::new(Instant::now()),
            bodies_per_second: AtomicU64::new(plan.bodies_per_second),
        });
        let senders = (0..plan.senders)
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.send(number))
            })
            .collect();
        Self { shared, senders }
    }

    /// Where the service is from now on.
    pub fn aim(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap() = address;
    }

    /// Changes the rate, in bodies a second.
    pub fn pace(&self, bodies_per_second: u64) {
        let rate = &self.shared.bodies_per_second;
        rate.store(bodies_per_second, Ordering::Relaxed);
    }

    /// Bodies that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many bodies are acknowledged.
    pub fn reach(&self, bodies: u64) {
        let mut last = (Instant::now(), 0);
        while self.acknowledged() < bodies {
            if self.acknowledged() > last.1 {
                last = (Instant::now(), self.acknowledged());
            }
            assert!(
                last.0.elapsed() < super::SOON,
                "stuck at {} of {bodies} bodies",
                last.1
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets the senders finish the plan.
    pub fn finish(self) -> Sent {
        let mut last = (Instant::now(), 0);
        while !self.senders.iter().all(JoinHandle::is_finished) {
            let acknowledged = self.acknowledged();
            if acknowledged > last.1 {
                last = (Instant::now(), acknowledged);
            }
            let stuck = last.0.elapsed() > 2 * super::SOON;
            assert!(!stuck, "stuck at {acknowledged} bodies");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.join()
    }

    /// Lets the senders finish what they are at, and no more.
    pub fn stop(self) -> Sent {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(mut self) -> Sent {
        let mut tally = Tally::default();
        for sender in std::mem::take(&mut self.senders) {
            tally.add(sender.join().unwrap());
        }
        let told = self.shared.told.iter();
        Sent {
            plan: self.shared.plan,
            told: told
                .map(|told| Told::of(told.load(Ordering::Relaxed)))
                .collect(),
            tally,
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn send(&self, sender: u64) -> Tally {
        let mut tally = Tally::default();
        let mut template = Template::new(self.plan.table);
        let mut wire = Wire::new(template.path(), self.plan.ack);
        let abandons = self.plan.abandon_every > 0 && sender % self.plan.abandon_every == 1;
        while let Some(body) = self.turn() {
            let bytes = template.fill(self.plan.mix, self.plan.first + body);
            let told = &self.told[usize::try_from(body).unwrap()];
            loop {
                let address = *self.address.lock().unwrap();
                let started = Instant::now();
                let level = match wire.post(address, bytes) {
                    Ok(answer) => tally.count(&answer, started.elapsed()),
                    Err(wire::Broken { sent }) => {
                        tally.broken += u64::from(sent);
                        if sent { Told::Unknown } else { Told::Nothing }
                    }
                };
                told.fetch_max(level as u8, Ordering::Relaxed);
                if level >= Told::Received {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                if self.stopping.load(Ordering::Relaxed) || level == Told::Unknown && abandons {
                    break;
                }
                std::thread::sleep(self.plan.pause);
            }
        }
        tally
    }

    /// The next body, when it is time for it.
    fn turn(&self) -> Option<u64> {
        let rate = self.bodies_per_second.load(Ordering::Relaxed);
        if rate > 0 {
            let due = {
                let mut pace = self.pace.lock().unwrap();
                // What was missed while nobody could send is not made up for.
                let due = (*pace).max(Instant::now() - Duration::from_millis(100));
                *pace = due + Duration::from_secs(1) / u32::try_from(rate).unwrap();
                due
            };
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        let body = self.next.fetch_add(1, Ordering::Relaxed);
        (body < self.plan.bodies).then_some(body)
    }
}

impl Tally {
    fn count(&mut self, answer: &wire::Answer<'_>, took: Duration) -> Told {
        match answer.status {
            200 | 202 => {
                let settled = &mut self.settled;
                settled.0 += answer.number("committed");
                settled.1 += answer.number("duplicates");
                settled.2 += answer.quarantined();
                match answer.text("ack") {
                    "committed" => Told::Committed,
                    "durable" => Told::Durable,
                    "received" => Told::Received,
                    other => panic!("acknowledged at '{other}'"),
                }
            }
            503 => {
                self.refusals.push(took);
                self.without_retry_after += u64::from(!answer.has_retry_after);
                let code = answer.text("code").to_owned();
                *self.codes.entry(code).or_default() += 1;
                // Of these alone the answer says that they may be stored.
                match answer.text("code") {
                    "disk_stalled" => Told::Unknown,
                    _ => Told::Refused,
                }
            }
            _ => {
                self.strange.push(answer.whole());
                Told::Refused
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.refusals.extend(other.refusals);
        self.without_retry_after += other.without_retry_after;
        self.strange.extend(other.strange);
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.broken += other.broken;
        self.settled.0 += other.settled.0;
        self.settled.1 += other.settled.1;
        self.settled.2 += other.settled.2;
    }

    /// The time within which this share of the refusals was answered.
    pub fn refused_within(&self, share: f64) -> Duration {
        let mut all = self.refusals.clone();
        all.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let place = (all.len() as f64 * share) as usize;
        all.get(place.min(all.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

impl Sent {
    /// Bodies that were told this.
    pub fn count(&self, told: Told) -> u64 {
        self.told.iter().filter(|&&one| one == told).count() as u64
    }
}

impl Told {
    fn of(number: u8) -> Self {
        [
            Told::Nothing,
            Told::Refused,
            Told::Unknown,
            Told::Received,
            Told::Durable,
            Told::Committed,
        ][usize::from(number)]
    }
}
