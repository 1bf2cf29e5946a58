//! Loads every table in every way, round after round.
//!
//! Keeps one invariant: a load finds its table empty and the disk at rest, and
//! leaves exactly its rows behind, or the whole comparison fails.

use anyhow::Context as _;
use recsys_ingest::event::table::Table as Target;
use recsys_ingest::event::time::Micros;

use super::child::Answerer;
use super::copy;
use super::http::{Load, events_of};
use super::options::CompareOptions;
use super::rows::{self, Rows, columns, suite_columns};
use super::sample::{Sample, Series};
use super::stage::{SALT, Stage};
use super::suite;
use super::way::{BODY, Way};
use super::workload::Workload;
use crate::answer::Ack;
use crate::generate::settings::Table;

/// Bodies in which the rows are made and checked.
const CHECK_BODY: u32 = 1000;

/// A table, its rows, and what loading them cost.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) table: Table,
    workload: Workload,
    rows: Rows,
    /// By way, in the order of a round.
    pub(crate) series: Vec<(Way, Series)>,
}

/// Everything that a comparison takes.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) stage: Stage,
    options: CompareOptions,
    handler: Answerer,
    /// The interactions first: what is asked is asked of them.
    pub(crate) entries: Vec<Entry>,
}

impl Rig {
    /// Makes the rows, and makes sure that HTTP stores what COPY loads.
    pub(crate) async fn prepare(
        stage: Stage,
        options: &CompareOptions,
        day_us: i64,
        now: Micros,
    ) -> anyhow::Result<Self> {
        stage.admin.client.batch_execute(suite::CREATE).await?;
        let mut entries = Vec::new();
        for (table, events) in [
            (Table::Interactions, options.interactions()),
            (Table::Exposures, options.exposures()),
        ] {
            let workload = Workload::of_one_day(options.seed, table, events, day_us, stage.key());
            let rows = prepare_rows(&stage, &workload, options, now).await?;
            let ways = Way::of_a_round(table);
            entries.push(Entry {
                table,
                workload,
                rows,
                series: ways.iter().map(|way| (*way, way.series(table))).collect(),
            });
        }
        Ok(Self {
            stage,
            options: options.clone(),
            handler: Answerer::empty_handler()?,
            entries,
        })
    }

    /// Gives every way its turn.
    pub(crate) async fn round(&mut self, progress: impl Fn(&str)) -> anyhow::Result<()> {
        let mut entries = std::mem::take(&mut self.entries);
        for entry in &mut entries {
            for at in 0..entry.series.len() {
                let way = entry.series[at].0;
                progress(&way.id(entry.table));
                let sample = self
                    .load(entry, way)
                    .await
                    .with_context(|| format!("{} failed", way.id(entry.table)))?;
                entry.series[at].1.samples.push(sample);
            }
        }
        self.entries = entries;
        Ok(())
    }

    async fn load(&self, entry: &Entry, way: Way) -> anyhow::Result<Sample> {
        match way {
            Way::Text | Way::Binary | Way::BinaryTwo | Way::SuiteText => {
                self.by_copy(&entry.rows, way).await
            }
            Way::Http(ack, body) => {
                let load = entry.cut(way.rows_of(entry.workload.events));
                self.by_http(&load, ack, body, None).await
            }
            Way::HalfRate(ack) => {
                let rate = entry.held_rate()? / 2.0;
                let seconds = self.options.half_rate_seconds();
                // Never more than the day has different events for.
                let load = entry.cut(events_of(rate, seconds));
                self.by_http(&load, ack, BODY, Some(rate)).await
            }
            Way::Empty => {
                let load = entry.cut(way.rows_of(entry.workload.events));
                let load = Load {
                    settings: &load.in_bodies_of(1),
                    table: load.table,
                    ack: Ack::Durable,
                    connections: self.options.connections(1),
                    rate: None,
                };
                load.run_empty(&self.stage, &self.handler).await
            }
        }
    }

    async fn by_copy(&self, rows: &Rows, way: Way) -> anyhow::Result<Sample> {
        let stage = &self.stage;
        let table = rows.table;
        let into = match way {
            Way::SuiteText => suite::name(table),
            _ => table.to_string(),
        };
        stage.clear(&into).await?;
        let meters = stage.meters(None).await?;
        let took = match way {
            Way::Text => copy::text(stage, &into, &columns(table), &rows.text).await?,
            Way::SuiteText => {
                copy::text(stage, &into, &suite_columns(table), &rows.suite_text).await?
            }
            Way::BinaryTwo => copy::binary(stage, rows, 2).await?,
            _ => copy::binary(stage, rows, 1).await?,
        };
        let mut sample = Sample {
            rows: rows.count,
            seconds: took.as_secs_f64(),
            ..Sample::default()
        };
        stage.read(&meters, &mut sample).await?;
        let stored = stage.count(&into).await?;
        anyhow::ensure!(
            stored == rows.count,
            "of {} rows {stored} are in {into}",
            rows.count
        );
        Ok(sample)
    }

    async fn by_http(
        &self,
        workload: &Workload,
        ack: Ack,
        body: u32,
        rate: Option<f64>,
    ) -> anyhow::Result<Sample> {
        let table = workload.table.name();
        self.stage.clear(table).await?;
        let load = Load {
            settings: &workload.in_bodies_of(body),
            table: workload.table,
            ack,
            connections: match (ack, rate) {
                // An answer waits for a COMMIT: the more wait, the more it commits.
                // And what is due at a time must not wait for a connection.
                (Ack::Committed, _) | (_, Some(_)) => self.options.connections(1),
                (Ack::Received | Ack::Durable, None) => self.options.connections(body),
            },
            rate,
        };
        let sample = load.run(&self.stage).await?;
        let stored = self.stage.count(table).await?;
        anyhow::ensure!(
            stored == sample.rows,
            "of {} acknowledged rows {stored} are in {table}",
            sample.rows
        );
        Ok(sample)
    }
}

impl Entry {
    /// The first `events` of the load, or as many as are asked for beyond it.
    fn cut(&self, events: u32) -> Workload {
        Workload {
            events,
            ..self.workload.clone()
        }
    }

    /// Rows a second that the service stored in this round.
    fn held_rate(&self) -> anyhow::Result<f64> {
        let held = Way::Http(Ack::Durable, BODY);
        self.series
            .iter()
            .find(|(way, _)| *way == held)
            .and_then(|(_, series)| series.samples.last())
            .map(Sample::rate)
            .context("a round measures the held rate before it takes half of it")
    }
}

async fn prepare_rows(
    stage: &Stage,
    workload: &Workload,
    options: &CompareOptions,
    now: Micros,
) -> anyhow::Result<Rows> {
    let table = match workload.table {
        Table::Exposures => Target::Exposures,
        Table::Interactions => Target::Interactions,
    };
    let settings = workload.in_bodies_of(CHECK_BODY);
    let tenant = stage.tenant;
    let (count, blocks) =
        tokio::task::spawn_blocking(move || rows::encode(&settings, table, tenant, SALT, now))
            .await
            .context("encoding the rows failed")??;
    let client = &stage.admin.client;
    stage.clear(table.as_str()).await?;
    copy::copy(&stage.admin, table, &blocks).await?;
    let copied = rows::digest(client, table).await?;
    let rows = Rows::loaded(client, table, count, blocks, stage.dir()).await?;

    stage.clear(table.as_str()).await?;
    let settings = workload.in_bodies_of(CHECK_BODY);
    let load = Load {
        settings: &settings,
        table: workload.table,
        ack: Ack::Durable,
        connections: options.connections(CHECK_BODY),
        rate: None,
    };
    load.run(stage).await?;
    let posted = rows::digest(client, table).await?;
    anyhow::ensure!(
        copied == posted,
        "HTTP does not store the rows that COPY loads into {table} ({posted}; {copied}): \
         build the load tester and the service from the same source"
    );
    Ok(rows)
}
