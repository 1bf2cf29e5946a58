//! Senders that remember what they were told: one half of the delivery tests' oracle. `audit` is
//! the other half and compares.
//!
//! Each sender has a thread and a keep-alive connection, and behaves like a careful client: it
//! repeats a body until it is acknowledged. Some senders give up on a broken request instead, so
//! that the fate of some bodies is unknown. Knows nothing about tables.

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
    /// The table of the events.
    pub table: Table,
    /// The `ack` parameter.
    pub ack: &'static str,
    /// Which events the bodies hold.
    pub mix: Mix,
    /// The number of the first body.
    pub first: u64,
    /// Number of bodies; the senders stop after the last one.
    pub bodies: u64,
    /// Number of senders.
    pub senders: u64,
    /// Bodies a second of all senders together; 0 means no limit.
    pub bodies_per_second: u64,
    /// One sender in this many gives up on a broken request instead of repeating it; 0 means
    /// none.
    pub abandon_every: u64,
    /// Pause before a body is repeated. Shorter than a polite client's, to keep the service busy.
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

/// What the sender knows about a body. Of several answers the highest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Told {
    /// It was never sent.
    Nothing,
    /// All answers were refusals.
    Refused,
    /// It was sent, and no answer arrived.
    Unknown,
    /// Acknowledged as received.
    Received,
    /// Acknowledged as durable.
    Durable,
    /// Acknowledged as committed.
    Committed,
}

/// Running senders.
pub struct Traffic {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<Tally>>,
}

/// State that the senders share.
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

/// The result of the senders.
#[derive(Debug, Default)]
pub struct Sent {
    /// The plan.
    pub plan: Plan,
    /// By body, from the plan's first one on.
    pub told: Vec<Told>,
    /// The sum over all senders.
    pub tally: Tally,
}

/// Counts of one sender, or of all.
#[derive(Debug, Default)]
pub struct Tally {
    /// The latency of each refusal.
    pub refusals: Vec<Duration>,
    /// Refusals without a Retry-After.
    pub without_retry_after: u64,
    /// Answers that were neither 200, 202 nor 503.
    pub strange: Vec<String>,
    /// How often each code was refused.
    pub codes: std::collections::BTreeMap<String, u64>,
    /// Connections that broke after a request was sent.
    pub broken: u64,
    /// What `committed` answers count: new, duplicate, quarantined.
    pub settled: (u64, u64, u64),
}

impl Traffic {
    /// Starts the senders.
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

    /// Changes the address of the service.
    pub fn aim(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap() = address;
    }

    /// Changes the rate, in bodies a second.
    pub fn pace(&self, bodies_per_second: u64) {
        let rate = &self.shared.bodies_per_second;
        rate.store(bodies_per_second, Ordering::Relaxed);
    }

    /// Number of bodies acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this number of bodies is acknowledged.
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

    /// Waits until the senders have finished the plan.
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

    /// Waits until the senders have finished their current body.
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

    /// The next body, when it is due.
    fn turn(&self) -> Option<u64> {
        let rate = self.bodies_per_second.load(Ordering::Relaxed);
        if rate > 0 {
            let due = {
                let mut pace = self.pace.lock().unwrap();
                // Bodies that were due more than 100 ms ago are not made up for.
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
                // The only refusal after which the events may still be stored.
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
    /// Number of bodies with this result.
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
