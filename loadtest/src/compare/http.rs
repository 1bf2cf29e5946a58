//! Loads over HTTP, until the last row is committed.
//!
//! Keeps one invariant: a load that lost a row, or stored one twice, is an error
//! and never a figure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::sample::{Latency, Sample};
use super::stage::Stage;
use crate::answer::Ack;
use crate::client::Target;
use crate::generate::plan::Plan;
use crate::generate::settings::{Settings, Table};
use crate::ledger::Ledger;
use crate::report::float;
use crate::run::{self, Schedule};
use crate::supply::Supply;

/// A load that takes longer is stuck.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// How long acknowledged rows may take to be committed.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How often the service is asked whether all rows are committed: the error of a figure.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// What to post, and how.
#[derive(Clone, Debug)]
pub(crate) struct Load<'l> {
    pub(crate) settings: &'l Settings,
    pub(crate) table: Table,
    pub(crate) ack: Ack,
    pub(crate) connections: usize,
    /// Events a second; none posts as fast as the answers come.
    pub(crate) rate: Option<f64>,
}

/// What came of posting.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) events: u64,
    /// Until the last answer.
    pub(crate) took: Duration,
    pub(crate) latency: Option<Latency>,
}

impl Load<'_> {
    /// Posts everything to the service, and waits until all of it is committed.
    pub(crate) async fn run(&self, stage: &Stage) -> anyhow::Result<Sample> {
        let service = stage.service()?;
        let prepared = self.prepare(&service.url()).await?;
        let mut probe = Probe::connect(service.authority()).await?;
        let before = probe.account(self.table).await?;
        let meters = stage.meters(Some(service.pid())).await?;
        let posted = prepared.post(self).await?;
        let answered = Instant::now();
        let settled = before.settled() + posted.events;
        let after = loop {
            let account = probe.account(self.table).await?;
            if account.settled() >= settled {
                break account;
            }
            anyhow::ensure!(
                answered.elapsed() < SETTLE_LIMIT,
                "of {} acknowledged rows {} are not committed after {} s",
                posted.events,
                settled - account.settled(),
                SETTLE_LIMIT.as_secs()
            );
            tokio::time::sleep(ASK_EVERY).await;
        };
        let committed = posted.took + answered.elapsed();
        anyhow::ensure!(
            after.stored == before.stored + posted.events,
            "of {} rows only {} are stored: the others were there before or are in quarantine",
            posted.events,
            after.stored - before.stored
        );
        let mut sample = Sample {
            rows: posted.events,
            seconds: committed.as_secs_f64(),
            acked_seconds: Some(posted.took.as_secs_f64()),
            latency: posted.latency,
            ..Sample::default()
        };
        stage.read(&meters, &mut sample).await?;
        Ok(sample)
    }

    /// Posts everything to the empty handler.
    pub(crate) async fn run_empty(
        &self,
        stage: &Stage,
        handler: &super::child::Answerer,
    ) -> anyhow::Result<Sample> {
        let prepared = self.prepare(&handler.url()).await?;
        let meters = stage.meters(Some(handler.pid())).await?;
        let posted = prepared.post(self).await?;
        let mut sample = Sample {
            rows: posted.events,
            seconds: posted.took.as_secs_f64(),
            latency: posted.latency,
            ..Sample::default()
        };
        stage.read(&meters, &mut sample).await?;
        // Postgres has no part in it.
        sample.postgres_cpu = None;
        sample.wal_bytes = None;
        Ok(sample)
    }

    /// Makes all bodies, so that making them costs the load nothing.
    pub(crate) async fn prepare(&self, url: &str) -> anyhow::Result<Prepared> {
        let plan = Arc::new(Plan::new(self.settings)?);
        let target = Target::new(url, self.ack, self.settings, &plan)?;
        let supply = Arc::new(Supply::new(usize::MAX));
        {
            let (supply, plan) = (Arc::clone(&supply), Arc::clone(&plan));
            let settings = self.settings.clone();
            tokio::task::spawn_blocking(move || drop(supply.fill(&settings, &plan)))
                .await
                .context("making the bodies failed")?;
        }
        Ok(Prepared {
            ledger: Arc::new(Ledger::new(plan.bodies())),
            plan,
            target,
            supply,
        })
    }
}

/// Bodies that are ready to be posted.
#[derive(Debug)]
pub(crate) struct Prepared {
    plan: Arc<Plan>,
    target: Target,
    supply: Arc<Supply>,
    ledger: Arc<Ledger>,
}

impl Prepared {
    /// Posts all of it.
    pub(crate) async fn post(&self, load: &Load<'_>) -> anyhow::Result<Posted> {
        let schedule = Schedule {
            connections: load.connections,
            rate: load.rate,
            // A refusal is part of the load: the row that it delays is waited for.
            retry: true,
            time_limit: LOAD_LIMIT,
        };
        let bar = ProgressBar::hidden();
        let (tally, took, finished) = run::pass(
            &self.plan, &self.target, &schedule, &self.supply, &self.ledger, &bar,
        )
        .await?;
        let total = tally.total();
        let events = u64::from(self.plan.slots());
        anyhow::ensure!(
            finished && tally.odd == 0 && total.accepted == events,
            "of {events} events {} were accepted, {} refused and {} not answered: {}",
            total.accepted,
            total.refused,
            total.unknown,
            tally.errors.join("; ")
        );
        Ok(Posted {
            events,
            took,
            latency: Latency::of(&tally.latency),
        })
    }
}

/// A connection that asks the service how far it is.
#[derive(Debug)]
struct Probe {
    sender: SendRequest<Empty<Bytes>>,
    authority: String,
    _driver: JoinSet<()>,
}

/// What became of the rows of a table.
#[derive(Clone, Copy, Debug)]
struct Account {
    stored: u64,
    /// Duplicates and rows in quarantine.
    others: u64,
}

impl Account {
    fn settled(&self) -> u64 {
        self.stored + self.others
    }
}

impl Probe {
    async fn connect(authority: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        // Errors of the connection come back from the request that meets them.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            authority: authority.to_owned(),
            _driver: driver,
        })
    }

    async fn account(&mut self, table: Table) -> anyhow::Result<Account> {
        let request = Request::get("/readyz?verbose=1")
            .header(header::HOST, &self.authority)
            .body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let ready: Value = serde_json::from_slice(&body).context("/readyz is not JSON")?;
        let rows = ready["rows"].as_array().context("/readyz has no rows")?;
        let row = rows
            .iter()
            .find(|row| row["table"] == table.name())
            .with_context(|| format!("/readyz says nothing of {}", table.name()))?;
        let number = |name: &str| {
            row[name]
                .as_u64()
                .with_context(|| format!("/readyz does not say how many rows are {name}"))
        };
        Ok(Account {
            stored: number("stored")?,
            others: number("duplicates")? + number("quarantined")?,
        })
    }
}

/// Events that take `seconds` at a rate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cut to the range first"
)]
pub(crate) fn events_of(rate: f64, seconds: f64) -> u32 {
    (rate * seconds).clamp(1.0, float(u64::from(u32::MAX / 2))) as u32
}
