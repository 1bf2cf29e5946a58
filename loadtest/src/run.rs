//! Posts all bodies, closed loop or open loop, and records what becomes of each.
//!
//! Keeps one invariant: a pass ends, by the last body or by the deadline, and every
//! body that left is in the tally. In an open loop a body is due when the schedule
//! says, and its latency counts from then: a service that stalls cannot slow down
//! the clock that it is measured with.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::Reply;
use crate::client::{Connection, Target};
use crate::generate::{Body, Plan, Settings};
use crate::report::{Tally, float};
use crate::service::Ack;
use crate::supply::Supply;

/// Attempts at one body, with `--retry`.
const ATTEMPTS_MAX: u32 = 20;
/// The longest wait that a Retry-After is granted.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Where a refusal does not say how long.
const WAIT_DEFAULT: Duration = Duration::from_millis(200);
/// A service that comes back answers within this; one that does not is gone.
const RECONNECT_FOR: Duration = Duration::from_secs(15);

/// Whether a pass is to end early.
pub type Stop = Arc<AtomicBool>;

/// Sets `stop` at the first signal that asks for it; at signal `last` the work is given up.
pub async fn stopped(stop: &AtomicBool, last: u32) -> anyhow::Error {
    for _ in 0..last {
        let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
            return anyhow::anyhow!("cannot listen for signals");
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.store(true, Ordering::Relaxed);
    }
    anyhow::anyhow!("stopped before the end")
}

/// How bodies are posted.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Connections that post at once.
    pub connections: usize,
    /// Events a second; none posts as fast as the answers come.
    pub rate: Option<f64>,
    /// Post again what was refused with 429 or 503, or lost with its connection.
    pub retry: bool,
    /// No body leaves after this, if it is set, and all is well.
    pub duration: Option<Duration>,
    /// Everything stops here.
    pub time_limit: Duration,
    /// Set when the pass is to end early.
    pub stop: Stop,
    /// What to wait for with each body.
    pub ack: Ack,
    /// Memory for bodies that are made ahead.
    pub prepare_bytes: usize,
}

/// What is posted, where and how.
#[derive(Debug)]
pub struct Job {
    pub plan: Arc<Plan>,
    pub target: Target,
    pub schedule: Schedule,
}

/// Bodies that are ready to be posted, and the thread that makes the rest.
pub type Made = (Supply, JoinHandle<()>);

impl Job {
    /// To post the events of `settings` to the service at `url`.
    pub fn new(settings: Settings, url: &str, schedule: Schedule) -> anyhow::Result<Self> {
        let plan = Plan::new(settings)?;
        Ok(Self {
            target: Target::new(url, schedule.ack, &plan)?,
            plan: Arc::new(plan),
            schedule,
        })
    }

    /// Makes bodies until all are made or no more fit into memory.
    pub async fn make(&self) -> Made {
        Supply::make(&self.plan, self.schedule.prepare_bytes).await
    }

    /// Posts all bodies once.
    pub async fn post(
        self: &Arc<Self>,
        (supply, maker): Made,
        progress: &ProgressBar,
    ) -> anyhow::Result<Tally> {
        // Drops the supply, so that the maker does not wait for room any more.
        let posted = self.post_all(Arc::new(supply), progress).await;
        maker
            .await
            .context("the thread that makes bodies panicked")?;
        posted
    }

    async fn post_all(
        self: &Arc<Self>,
        supply: Arc<Supply>,
        progress: &ProgressBar,
    ) -> anyhow::Result<Tally> {
        // Connecting is not what is measured.
        let mut connections = Vec::new();
        for _ in 0..self.schedule.connections {
            connections.push(self.target.connect().await?);
        }
        let began = Instant::now();
        let mut senders = JoinSet::new();
        for connection in connections {
            let sender = Sender {
                job: Arc::clone(self),
                supply: Arc::clone(&supply),
                progress: progress.clone(),
                began,
                deadline: began + self.schedule.time_limit,
                until: self.schedule.duration.map(|duration| began + duration),
                connection,
                tally: Tally::default(),
            };
            senders.spawn(sender.run());
        }
        let mut tally = Tally::default();
        while let Some(sender) = senders.join_next().await {
            tally.add(sender.context("a connection's task panicked")?);
        }
        tally.took = began.elapsed();
        tally.made_late = !supply.is_complete;
        Ok(tally)
    }
}

/// One connection and its tally.
struct Sender {
    job: Arc<Job>,
    supply: Arc<Supply>,
    progress: ProgressBar,
    began: Instant,
    deadline: Instant,
    /// Bodies that are due later do not leave.
    until: Option<Instant>,
    connection: Connection,
    tally: Tally,
}

impl Sender {
    /// Posts until there is nothing left.
    async fn run(mut self) -> Tally {
        while let Some(body) = self.supply.next().await {
            let due = match self.job.schedule.rate {
                None => Instant::now(),
                Some(rate) => {
                    let after = float(body.events_before) / rate;
                    let due = self.began + Duration::from_secs_f64(after.min(1e9));
                    if due < self.deadline {
                        sleep_until(due).await;
                        self.tally.late(due.elapsed());
                    }
                    due
                }
            };
            let now = due.max(Instant::now());
            if self.until.is_some_and(|until| now >= until) {
                self.supply.abandon();
                break;
            }
            let is_stopped = self.job.schedule.stop.load(Ordering::Relaxed);
            let mut goes_on = now < self.deadline && !is_stopped;
            if goes_on {
                self.deliver(&body, due).await;
                self.progress.inc(u64::from(body.events));
                goes_on = self.connection.is_usable() || self.reconnect().await;
            }
            if !goes_on {
                self.supply.abandon();
                self.tally.unfinished = true;
                return self.tally;
            }
        }
        // The sender that met the deadline took the rest away.
        self.tally.unfinished = Instant::now() >= self.deadline;
        self.tally
    }

    /// Posts one body until it is answered, or no more attempts are left.
    async fn deliver(&mut self, body: &Body, due: Instant) {
        let job = Arc::clone(&self.job);
        let stream = job.plan.stream_at(body.number);
        let kind = job.plan.stream_of(body.number).kind();
        self.tally.posted.push(body.number);
        for attempt in 1.. {
            self.tally.bytes += u64::try_from(body.bytes.len()).expect("bodies are small");
            let reply = job
                .target
                .post(&mut self.connection, stream, body.bytes.clone())
                .await;
            let may_retry = job.schedule.retry && attempt < ATTEMPTS_MAX;
            let (is_refused, wait) = match reply {
                Reply::Answered(answer) => {
                    self.tally.answered(kind, body, &answer, due.elapsed());
                    return;
                }
                Reply::Refused {
                    status,
                    code,
                    retry_after_seconds,
                } => {
                    let passing = matches!(status.as_u16(), 429 | 503);
                    if !passing {
                        self.tally.error(format!("refused with {status} {code}"));
                    }
                    self.tally.refusal(status.as_u16(), code);
                    let wait = retry_after_seconds.map_or(WAIT_DEFAULT, Duration::from_secs);
                    (true, Some(wait.min(WAIT_MAX)).filter(|_| passing))
                }
                Reply::Unknown(why) => {
                    self.tally.error(why);
                    // An event that is posted again is stored once all the same.
                    let broken = !self.connection.is_usable();
                    (false, broken.then_some(Duration::ZERO))
                }
            };
            let in_time = |wait: &Duration| may_retry && Instant::now() + *wait < self.deadline;
            let Some(wait) = wait.filter(in_time) else {
                return self.tally.given_up(kind, body, is_refused);
            };
            sleep(wait).await;
            if !self.connection.is_usable() && !self.reconnect().await {
                return self.tally.given_up(kind, body, false);
            }
            self.tally.retries += 1;
        }
    }

    /// Connects again, patiently; `false` if the service does not come back.
    async fn reconnect(&mut self) -> bool {
        let until = (Instant::now() + RECONNECT_FOR).min(self.deadline);
        loop {
            match self.job.target.connect().await {
                Ok(connection) => {
                    self.connection = connection;
                    self.tally.reconnects += 1;
                    return true;
                }
                Err(error) if Instant::now() >= until => {
                    self.tally.error(format!("{error:#}"));
                    return false;
                }
                Err(_) => sleep(WAIT_DEFAULT).await,
            }
        }
    }
}
