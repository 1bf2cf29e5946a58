//! Posts all bodies, closed loop or open loop, and notes what becomes of each.
//!
//! Keeps one invariant: it ends, by the last body or by the deadline, and every
//! body that left is in the tally. In an open loop a body is due when the
//! schedule says so, whatever the service does, and its latency counts from then:
//! a service that stalls cannot slow down the clock that it is measured with.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::Outcome;
use crate::client::{Connection, Target};
use crate::generate::body::Body;
use crate::generate::plan::Plan;
use crate::ledger::Ledger;
use crate::report::Pass;
use crate::report::tally::Tally;
use crate::supply::Supply;

/// Attempts at one body, with `--retry`.
const ATTEMPTS_MAX: u32 = 20;
/// However long a service asks us to wait.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Where a refusal does not say how long.
const WAIT_DEFAULT: Duration = Duration::from_millis(200);
/// A service that comes back answers within this; one that does not is gone.
const RECONNECT_FOR: Duration = Duration::from_secs(15);

/// How bodies are posted.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Connections that post at once.
    pub(crate) connections: usize,
    /// Events a second; none posts as fast as the answers come.
    pub(crate) rate: Option<f64>,
    /// Post again what was refused with 429 or 503, or lost with its connection.
    pub(crate) retry: bool,
    /// Everything stops here.
    pub(crate) time_limit: Duration,
}

/// What the connections of a pass share.
#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    target: Target,
    schedule: Schedule,
    supply: Arc<Supply>,
    ledger: Arc<Ledger>,
    progress: ProgressBar,
    began: Instant,
    deadline: Instant,
}

/// Posts the bodies of `supply` once.
pub(crate) async fn pass(
    plan: &Arc<Plan>,
    target: &Target,
    schedule: &Schedule,
    supply: &Arc<Supply>,
    ledger: &Arc<Ledger>,
    progress: &ProgressBar,
) -> anyhow::Result<(Tally, Duration, bool)> {
    // Connecting is not what is measured.
    let mut connections = Vec::new();
    for _ in 0..schedule.connections {
        connections.push(target.connect().await?);
    }
    let began = Instant::now();
    let shared = Arc::new(Shared {
        plan: Arc::clone(plan),
        target: target.clone(),
        schedule: schedule.clone(),
        supply: Arc::clone(supply),
        ledger: Arc::clone(ledger),
        progress: progress.clone(),
        began,
        deadline: began + schedule.time_limit,
    });
    let mut lanes = JoinSet::new();
    for connection in connections {
        lanes.spawn(Lane::new(Arc::clone(&shared), connection).run());
    }
    let mut tally = Tally::new();
    let mut finished = true;
    while let Some(lane) = lanes.join_next().await {
        let (lane, to_the_end) = lane.context("a connection's task panicked")?;
        finished &= to_the_end;
        tally.add(lane);
    }
    Ok((tally, began.elapsed(), finished))
}

impl Pass {
    /// From what a pass came to.
    pub(crate) fn new((tally, took, finished): (Tally, Duration, bool), made_before: bool) -> Self {
        Self {
            tally,
            took,
            finished,
            made_before,
        }
    }
}

/// One connection and its tally.
struct Lane {
    shared: Arc<Shared>,
    connection: Connection,
    tally: Tally,
}

impl Lane {
    fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        Self {
            shared,
            connection,
            tally: Tally::new(),
        }
    }

    /// Posts until there is nothing left; says whether it came to the end.
    async fn run(mut self) -> (Tally, bool) {
        let shared = Arc::clone(&self.shared);
        while let Some(body) = shared.supply.next().await {
            let due = match shared.schedule.rate {
                None => Instant::now(),
                Some(rate) => {
                    let after = crate::report::float(body.events_before) / rate;
                    let due = shared.began + Duration::from_secs_f64(after.min(1e9));
                    if due < shared.deadline {
                        sleep_until(due).await;
                        self.tally.late(due.elapsed());
                    }
                    due
                }
            };
            if due >= shared.deadline || Instant::now() >= shared.deadline {
                shared.supply.abandon();
                return (self.tally, false);
            }
            self.deliver(&body, due).await;
            shared.progress.inc(u64::from(body.events));
            if !self.connection.is_usable() && !self.reconnect().await {
                shared.supply.abandon();
                return (self.tally, false);
            }
        }
        // Whoever met the deadline took the rest away from us.
        (self.tally, Instant::now() < shared.deadline)
    }

    /// Posts one body until it is answered, or no more attempts are left.
    async fn deliver(&mut self, body: &Body, due: Instant) {
        let shared = Arc::clone(&self.shared);
        let stream_at = shared.plan.stream_at(body.number);
        let stream = shared.plan.stream_of(body.number);
        let kind = (stream.table, stream.format);
        shared.ledger.post(body.number);
        for attempt in 1.. {
            self.tally.bytes += u64::try_from(body.bytes.len()).expect("bodies are small");
            let bytes = body.bytes.clone();
            let outcome = shared
                .target
                .post(&mut self.connection, stream_at, bytes)
                .await;
            let may_retry = shared.schedule.retry && attempt < ATTEMPTS_MAX;
            let wait = match outcome {
                Outcome::Answered(answer) => {
                    if !shared.ledger.answer(body, &answer) {
                        self.tally.odd += 1;
                    }
                    self.tally.answered(kind, &answer, due.elapsed());
                    return;
                }
                Outcome::Refused {
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
                    let wait = wait.min(WAIT_MAX);
                    if !(passing && may_retry && Instant::now() + wait < shared.deadline) {
                        self.tally.refused(kind, body.events);
                        return;
                    }
                    wait
                }
                Outcome::Unknown(why) => {
                    self.tally.error(why);
                    let broken = !self.connection.is_usable();
                    // An event that is posted again is stored once all the same.
                    if !(broken && may_retry && self.reconnect().await) {
                        self.tally.unknown(kind, body.events);
                        return;
                    }
                    Duration::ZERO
                }
            };
            self.tally.retries += 1;
            sleep(wait).await;
            if !self.connection.is_usable() && !self.reconnect().await {
                self.tally.unknown(kind, body.events);
                return;
            }
        }
    }

    /// Connects again, patiently; `false` if the service does not come back.
    async fn reconnect(&mut self) -> bool {
        let until = (Instant::now() + RECONNECT_FOR).min(self.shared.deadline);
        loop {
            match self.shared.target.connect().await {
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
