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
use crate::report::float;
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
    let suite = include_str!("suite.sql");
    environment.admin.client.batch_execute(suite).await?;
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
    for round in 1..=options.rounds() {
        for entry in &mut entries {
            for at in 0..entry.series.len() {
                let (method, series) = &entry.series[at];
                progress(&format!(
                    "round {round} of {}: {}",
                    options.rounds(),
                    series.id
                ));
                let sample = entry.run(*method, environment, options, &handler).await;
                let sample = sample.with_context(|| format!("{} failed", series.id))?;
                entry.series[at].1.samples.push(sample);
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
        let mut load = Load {
            events: method.rows_of(self.load.events),
            ..self.load.clone()
        };
        match method {
            Method::Text | Method::Binary(_) | Method::SuiteText => {
                return load_by_copy(environment, &self.rows, method).await;
            }
            Method::Empty => {
                load.body = 1;
                load.connections = options.connections(1);
                return load.run_empty(environment, handler).await;
            }
            Method::Http(ack, body) => (load.ack, load.body) = (ack, body),
            Method::HalfRate(ack) => {
                let rate = self.held_rate()? / 2.0;
                load.ack = ack;
                load.rate = Some(rate);
                load.events = events_of(rate, options.half_rate_seconds());
            }
        }
        load.connections = match (load.ack, load.rate) {
            (Ack::Received | Ack::Durable, None) => options.connections(load.body),
            // An answer waits for a COMMIT: the more wait, the more it commits.
            // And what is due at a time must not wait for a connection.
            _ => options.connections(1),
        };
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
        };
        let mut section = Section::new(title);
        for (method, series) in self.series {
            match method.is_throughput() {
                true => section.throughput.push(series),
                false => section.paced.push(series),
            }
        }
        section
    }
}

/// Events that take `seconds` at a rate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cut to the range first"
)]
fn events_of(rate: f64, seconds: f64) -> u32 {
    (rate * seconds).clamp(1.0, float(u64::from(u32::MAX / 2))) as u32
}
