//! Loads every table by every method, round after round.
//!
//! Keeps one invariant: a load finds its table empty and the disk at rest, and
//! leaves exactly its rows behind, or the whole comparison fails.

use anyhow::Context as _;
use jiff::Timestamp;

use super::environment::Environment;
use super::load::Load;
use super::method::{BODY, Method, load_by_copy};
use super::options::CompareOptions;
use super::programs::Program;
use super::rows::Rows;
use super::sample::{Sample, Section, Series};
use crate::report::events_of;
use crate::service::{Ack, Micros, Table};

/// A table, its rows, and how they are loaded.
#[derive(Debug)]
struct Entry {
    load: Load,
    rows: Rows,
    /// In the order of a round.
    methods: Vec<Method>,
}

/// Makes the rows, and gives every method its turn in every round. A table is a section.
pub async fn run(
    environment: &Environment,
    options: &CompareOptions,
    day_us: i64,
    progress: &dyn Fn(&str),
    sections: &mut Vec<Section>,
) -> anyhow::Result<()> {
    progress("making rows");
    environment.make_suite().await?;
    let now = Micros(Timestamp::now().as_microsecond());
    let mut entries = Vec::new();
    // The interactions first: most targets are set for them.
    for (table, title) in [
        (Table::Interactions, "Interactions"),
        (Table::Exposures, "Exposures of ten items"),
    ] {
        let load = Load::new(options, table, BODY, day_us);
        let rows = Rows::make(environment, &load, now).await?;
        rows.check(environment, &load).await?;
        let methods = Method::of_a_round(table);
        let series = methods.iter();
        let series = series.map(|method| Series::new(method.id(table), method.title()));
        sections.push(Section {
            title: title.to_owned(),
            series: series.collect(),
        });
        entries.push(Entry {
            load,
            rows,
            methods,
        });
    }
    let handler = Program::empty_handler()?;
    for round in 1..=options.rounds {
        for (entry, section) in entries.iter().zip(&mut *sections) {
            for (at, &method) in entry.methods.iter().enumerate() {
                let held = entry.held_rate(section);
                let series = &mut section.series[at];
                progress(&format!(
                    "round {round} of {}: {}",
                    options.rounds, series.id
                ));
                let load = entry.run(method, held, environment, options, &handler);
                series.measure(load).await?;
            }
        }
    }
    Ok(())
}

impl Entry {
    async fn run(
        &self,
        method: Method,
        held: Option<f64>,
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
                let held =
                    held.context("a round measures the held rate before it takes half of it")?;
                let rate = held / 2.0;
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

    /// Rows a second that the service stored when that was measured last.
    fn held_rate(&self, section: &Section) -> Option<f64> {
        let is_held = |method: &Method| *method == Method::Http(Ack::Durable, BODY);
        let at = self.methods.iter().position(is_held)?;
        section.series[at].samples.last().map(Sample::rate)
    }
}
