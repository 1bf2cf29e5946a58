//! A load over HTTP, until the last row is committed.
//!
//! Keeps one invariant: a load that lost a row, or stored one twice, is an error
//! and never a figure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use jiff::Timestamp;

use super::environment::{Environment, KEY, SERVICE_KEY};
use super::options::CompareOptions;
use super::programs::Program;
use super::sample::Sample;
use crate::client::Connection;
use crate::generate::{Caller, Scope, Settings, only};
use crate::report::Latency;
use crate::run::{Job, Made, Schedule, Stop};
use crate::service::{Ack, Interval, Table};

const HOUR_US: i64 = 3_600_000_000;
pub const DAY_US: i64 = 24 * HOUR_US;
/// Events begin and end this far from midnight, so that none falls into another day.
const MARGIN_US: i64 = 2 * HOUR_US;
/// A load that takes longer is stuck.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// How long acknowledged rows may take to be committed.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How often the service is asked whether all rows are committed: the error of a figure.
const ASK_EVERY: Duration = Duration::from_millis(2);

#[derive(Clone, Debug)]
pub struct Load {
    pub table: Table,
    /// The events, which are the same ones however they are put into bodies.
    pub settings: Settings,
    pub ack: Ack,
    pub connections: usize,
    /// Events a second; none posts as fast as the answers come.
    pub rate: Option<f64>,
}

impl Load {
    /// All events of a table, on one day, in bodies of `body` at `ack=durable`.
    pub fn new(options: &CompareOptions, table: Table, body: u32, day_us: i64) -> Self {
        let settings = Settings {
            seed: Some(options.seed),
            events: options.events(table),
            body_events: body..=body,
            mix: only(table),
            callers: vec![caller(KEY, Scope::Own)],
            ..Settings::default()
        };
        let this = Self {
            table,
            settings,
            ack: Ack::Durable,
            connections: options.connections(body),
            rate: None,
        };
        this.on_days(day_us, 1)
    }

    /// With this many events a body, and the connections for that.
    pub fn in_bodies(mut self, options: &CompareOptions, body: u32) -> Self {
        self.settings.body_events = body..=body;
        self.connections = options.connections(body);
        self
    }

    /// With its events spread over some days, of which the first begins at `day_us`.
    pub fn on_days(mut self, day_us: i64, days: u32) -> Self {
        let end_us = day_us + i64::from(days) * DAY_US - MARGIN_US;
        self.settings.until = Timestamp::from_microsecond(end_us).ok();
        self.settings.days = f64::from(days) - 4.0 / 24.0;
        self
    }

    /// With events that name these tenants in turn.
    pub fn for_tenants(mut self, names: &[String]) -> Self {
        self.settings.tenants = names.to_vec();
        self.settings.callers = vec![caller(SERVICE_KEY, Scope::Any)];
        self
    }

    /// Posts everything into the empty table, and waits until all of it is committed.
    pub async fn run_alone(&self, environment: &Environment) -> anyhow::Result<Sample> {
        let table = self.table.as_str();
        environment.clear(table).await?;
        let sample = self.run(environment).await?;
        environment.ensure_rows(table, sample.rows).await?;
        Ok(sample)
    }

    /// Posts everything to the service, and waits until all of it is committed.
    pub async fn run(&self, environment: &Environment) -> anyhow::Result<Sample> {
        let service = environment.service()?;
        let (job, made) = self.make(&service.url).await?;
        let mut connection = job.target.connect().await?;
        let (stored_before, others) = self.account(&job, &mut connection).await?;
        let load = async {
            let mut sample = post(&job, made).await?;
            let posted = Instant::now();
            let due = stored_before + others + sample.rows;
            let stored = loop {
                let (stored, others) = self.account(&job, &mut connection).await?;
                if stored + others >= due {
                    break stored - stored_before;
                }
                anyhow::ensure!(
                    posted.elapsed() < SETTLE_LIMIT,
                    "of {} acknowledged rows {} are not committed after {} s",
                    sample.rows,
                    due - stored - others,
                    SETTLE_LIMIT.as_secs()
                );
                tokio::time::sleep(ASK_EVERY).await;
            };
            sample.acked_seconds = Some(sample.seconds);
            sample.seconds += posted.elapsed().as_secs_f64();
            anyhow::ensure!(
                stored == sample.rows,
                "of {} rows only {stored} are stored: the others were there before or are in quarantine",
                sample.rows
            );
            Ok(sample)
        };
        environment.metered(Some(service.pid()), load).await
    }

    /// Posts everything to the empty handler.
    pub async fn run_empty(
        &self,
        environment: &Environment,
        handler: &Program,
    ) -> anyhow::Result<Sample> {
        let (job, made) = self.make(&handler.url).await?;
        let sample = environment
            .metered(Some(handler.pid()), post(&job, made))
            .await?;
        // Postgres has no part in it.
        Ok(Sample {
            postgres_cpu: None,
            wal_bytes: None,
            ..sample
        })
    }

    /// Makes all bodies, so that making them costs the load nothing.
    async fn make(&self, url: &str) -> anyhow::Result<(Arc<Job>, Made)> {
        let schedule = Schedule {
            connections: self.connections,
            rate: self.rate,
            // A refusal is part of the load: the row that it delays is waited for.
            retry: true,
            duration: None,
            stop: Stop::default(),
            time_limit: LOAD_LIMIT,
            ack: self.ack,
            prepare_bytes: usize::MAX,
        };
        let job = Arc::new(Job::new(self.settings.clone(), url, schedule)?);
        let made = job.make().await;
        Ok((job, made))
    }

    /// How many rows of the table are stored, and how many are duplicates or in quarantine.
    async fn account(&self, job: &Job, connection: &mut Connection) -> anyhow::Result<(u64, u64)> {
        let rows = job.target.rows(connection).await?;
        let table = self.table.as_str();
        let row = rows.iter().find(|row| row["table"] == table);
        let row = row.with_context(|| format!("/readyz says nothing of {table}"))?;
        let number = |name: &str| {
            let number = row[name].as_u64();
            number.with_context(|| format!("/readyz does not say how many rows are {name}"))
        };
        let others = number("duplicates")? + number("quarantined")?;
        Ok((number("stored")?, others))
    }
}

/// Posts all bodies; the sample counts until the last answer.
async fn post(job: &Arc<Job>, made: Made) -> anyhow::Result<Sample> {
    let tally = job.post(made, &ProgressBar::hidden()).await?;
    let total = tally.total();
    let events = u64::from(job.plan.slots());
    anyhow::ensure!(
        !tally.unfinished && tally.odd.is_empty() && total.accepted == events,
        "of {events} events {} were accepted, {} refused and {} not answered: {}",
        total.accepted,
        total.refused,
        total.unknown,
        tally.errors.join("; ")
    );
    Ok(Sample {
        rows: events,
        seconds: tally.took.as_secs_f64(),
        latency: Latency::of(&tally.latency.0),
        ..Sample::default()
    })
}

fn caller(key: &str, scope: Scope) -> Caller {
    Caller {
        key: Some(key.to_owned()),
        scope,
    }
}

/// The day that `now` falls into: its partition is a hot one.
pub fn day_of(now: Timestamp) -> i64 {
    Interval::Day.range_of(now.as_microsecond()).from_us
}
