//! Loads every table by every method, round after round.
//!
//! Keeps one invariant: a load finds its table empty and the disk at rest, and
//! leaves exactly its rows behind, or the whole comparison fails.

use anyhow::Context as _;

use super::environment::Environment;
use super::load::Load;
use super::method::{BODY, Method, load_by_copy};
use super::options::CompareOptions;
use super::programs::Program;
use super::rows::Rows;
use super::sample::{Sample, Section, Series};
use crate::report::events_of;
use crate::service::{Ack, Micros, Table};

/// A table, its rows, and what loading them cost.
#[derive(Debug)]
struct Entry {
    load: Load,
    rows: Rows,
    /// By method, in the order of a round.
    series: Vec<(Method, Series)>,
}

/// Makes the rows, and gives every method its turn in every round.
pub async fn run(
    environment: &Environment,
    options: &CompareOptions,
    day_us: i64,
    now: Micros,
    progress: &dyn Fn(&str),
) -> anyhow::Result<Vec<Section>> {
    progress("making rows");
    environment.make_suite().await?;
    let mut entries = Vec::new();
    // The interactions first: most targets are set for them.
    for table in [Table::Interactions, Table::Exposures] {
        let load = Load::new(options, table, BODY, day_us);
        let rows = Rows::make(environment, &load, now).await?;
        rows.check(environment, &load).await?;
        let series = |method: Method| (method, Series::new(method.id(table), method.title()));
        entries.push(Entry {
            load,
            rows,
            series: Method::of_a_round(table).into_iter().map(series).collect(),
        });
    }
    let handler = Program::empty_handler()?;
    for round in 1..=options.rounds {
        for entry in &mut entries {
            for at in 0..entry.series.len() {
                let (method, series) = &entry.series[at];
                progress(&format!(
                    "round {round} of {}: {}",
                    options.rounds, series.id
                ));
                let sample = entry.run(*method, environment, options, &handler).await;
                let series = &mut entry.series[at].1;
                series.measure(async { sample }).await?;
            }
        }
    }
    Ok(entries.into_iter().map(Entry::into_section).collect())
}

impl Entry {
    async fn run(
        &self,
        method: Method,
        environment: &Environment,
        options: &CompareOptions,
        handler: &Program,
    ) -> anyhow::Result<Sample> {
        let mut load = self.load.clone();
        load.settings.events = method.rows_of(load.settings.events);
        match method {
            Method::Text | Method::Binary(_) | Method::SuiteText => {
                return load_by_copy(environment, &self.rows, method).await;
            }
            Method::Empty => {
                let load = load.in_bodies(options, 1);
                return load.run_empty(environment, handler).await;
            }
            Method::Http(ack, body) => {
                load = load.in_bodies(options, body);
                load.ack = ack;
            }
            Method::HalfRate(ack) => {
                let rate = self.held_rate()? / 2.0;
                load.ack = ack;
                load.rate = Some(rate);
                load.settings.events = events_of(rate * options.half_rate_seconds, 1);
            }
        }
        // An answer waits for a COMMIT: the more wait, the more it commits.
        // And what is due at a time must not wait for a connection.
        if load.ack == Ack::Committed || load.rate.is_some() {
            load.connections = options.connections(1);
        }
        load.run_alone(environment).await
    }

    /// Rows a second that the service stored in this round.
    fn held_rate(&self) -> anyhow::Result<f64> {
        let is_held = |(method, _): &&(Method, _)| *method == Method::Http(Ack::Durable, BODY);
        let held = self.series.iter().find(is_held);
        held.and_then(|(_, series)| series.samples.last())
            .map(Sample::rate)
            .context("a round measures the held rate before it takes half of it")
    }

    fn into_section(self) -> Section {
        let title = match self.load.table {
            Table::Interactions => "Interactions",
            Table::Exposures => "Exposures of ten items",
            Table::Assignments => "Assignments",
        };
        Section {
            title: title.to_owned(),
            series: self.series.into_iter().map(|(_, series)| series).collect(),
        }
    }
}
