//! `compare`: the service against COPY, in one run on one machine.
//!
//! Unlike the rest of the load tester, this part takes the service's own code on
//! purpose: it starts a Postgres with its launcher and has its encoder make the
//! rows, so that every method loads the very same ones. That they are the same is
//! checked against what the service stores.
//!
//! Modules in reading order: what a load costs (`process`, `machine`, `sample`),
//! what takes part (`programs`, `environment`), what is loaded and how (`load`,
//! `rows`, `method`), everything in turn (`rounds`, `baseline`, `growth`), and what
//! it comes to (`targets`, `text`).

mod baseline;
mod environment;
mod growth;
mod load;
mod machine;
mod method;
mod options;
mod process;
mod programs;
mod rounds;
mod rows;
mod sample;
mod targets;
#[cfg(test)]
mod tests;
mod text;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::report::{float, versions};
use crate::run::Stop;
use crate::service::Micros;
use environment::Environment;
use growth::Growth;
use machine::Machine;
use sample::{Section, Series};
use targets::{Judged, WHERE_NOTHING_ELSE};

pub use options::CompareOptions;
pub use programs::{EMPTY_HANDLER, serve_empty};
#[cfg(test)]
pub use {
    environment::{Environment as TestEnvironment, TENANT},
    method::copy,
    tests::test_environment,
};

/// How long a signal may take from the terminal to here.
const SIGNAL_WAIT: Duration = Duration::from_millis(300);

/// Everything that a comparison came to, for the reports to show.
#[derive(Clone, Debug)]
pub struct Comparison {
    machine: Machine,
    began_at: Timestamp,
    took: Duration,
    rounds: u16,
    /// To see that it works, not to quote.
    is_quick: bool,
    /// A signal ended it before all was measured.
    is_interrupted: bool,
    versions: Value,
    /// What the service was started with, its defaults apart.
    service_args: Vec<String>,
    sections: Vec<Section>,
}

/// Compares, reports, and says whether all is as it should be. Once `stop` is set the report is of
/// what was measured until then.
pub async fn compare(options: CompareOptions, stop: &Stop) -> anyhow::Result<bool> {
    let options = &options.resolved();
    let comparison = measure(options, stop).await?;
    options.outputs.say(&text::render(&comparison));
    options.outputs.write(&comparison.json())?;
    let is_met = !options.strict || comparison.judged().iter().all(Judged::is_met);
    Ok(is_met && !comparison.is_interrupted)
}

async fn measure(options: &CompareOptions, stop: &Stop) -> anyhow::Result<Comparison> {
    let (began, now) = (Instant::now(), Timestamp::now());
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
        .expect("the template is a constant");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let progress = |what: &str| bar.set_message(what.to_owned());
    progress("starting PostgreSQL and the service");
    let service = options.service.as_deref();
    let mut environment = Environment::new(options, service, Micros(now.as_microsecond())).await?;
    let postgres = environment.value("SHOW server_version").await?;
    let machine = Machine::look(environment.dir(), postgres)?;
    let mut sections = Vec::new();
    let loads = load_all(&mut environment, options, now, &progress, &mut sections);
    let measured = tokio::select! {
        measured = loads => measured,
        () = told_to(stop) => Ok(()),
    };
    if measured.is_err() && !stop.load(Ordering::Relaxed) {
        // A signal of the terminal ends the service and PostgreSQL, too, and a load that loses them
        // may end before the signal is seen here.
        drop(tokio::time::timeout(SIGNAL_WAIT, told_to(stop)).await);
    }
    let is_interrupted = stop.load(Ordering::Relaxed);
    if is_interrupted {
        sections.retain_mut(Section::keep_measured);
        anyhow::ensure!(!sections.is_empty(), "stopped before anything was measured");
    } else {
        measured?;
    }
    let environment_version = environment.version();
    let deleted = environment.delete().await;
    if !is_interrupted {
        deleted?;
    }
    bar.finish_and_clear();
    Ok(Comparison {
        machine,
        began_at: now,
        took: began.elapsed(),
        rounds: options.rounds,
        is_quick: options.quick,
        is_interrupted,
        versions: versions(environment_version),
        service_args: options.service_args.clone(),
        sections,
    })
}

/// Waits until `stop` is set.
async fn told_to(stop: &Stop) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Does every load; what each cost is in `sections` as soon as it is known.
async fn load_all(
    environment: &mut Environment,
    options: &CompareOptions,
    now: Timestamp,
    progress: &dyn Fn(&str),
    sections: &mut Vec<Section>,
) -> anyhow::Result<()> {
    let day_us = load::day_of(now);
    if options.growth {
        raise_open_files()?;
        let growth = Growth {
            environment,
            options,
            day_us,
            progress,
            sections,
        };
        return growth.run().await;
    }
    if let Some(brokers) = &options.kafka_brokers {
        environment.use_kafka(brokers);
    }
    environment.start_service(&[]).await?;
    let Some(program) = &options.baseline else {
        return rounds::run(environment, options, day_us, progress, sections).await;
    };
    let micros = Micros(now.as_microsecond());
    let mut baseline = Environment::new(options, Some(program), micros).await?;
    baseline.start_service(&[]).await?;
    let both = [&*environment, &baseline];
    baseline::run(both, options, day_us, progress, sections).await?;
    baseline.delete().await
}

/// Two thousand connections take more files than some shells allow; the service
/// inherits what we have.
fn raise_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

impl Comparison {
    fn series(&self) -> impl Iterator<Item = &Series> {
        self.sections.iter().flat_map(|section| &section.series)
    }

    /// The figures that have a target, and whether they reach it.
    fn judged(&self) -> Vec<Judged> {
        targets::judge(&self.series().collect::<Vec<_>>())
    }

    /// What was measured, and on what, in a sentence or two.
    fn summary(&self) -> String {
        let Machine {
            cpu,
            cores,
            postgres,
            sync_ms,
            ..
        } = &self.machine;
        let gib = float(self.machine.memory_bytes) / 1_073_741_824.0;
        let sync = sync_ms.map_or(String::new(), |spread| {
            let ms = spread.median;
            format!(", with a disk that syncs a small write in {ms:.2} ms")
        });
        format!(
            "The same rows by every method, in {} alternating rounds, on {cores} cores ({cpu}) with {gib:.1} GiB of \
             memory that the service, PostgreSQL {postgres} and the load generator share{sync}.",
            self.rounds,
        )
    }

    fn json(&self) -> Value {
        json!({
            "kind": "comparison",
            "quick": self.is_quick,
            "interrupted": self.is_interrupted,
            "versions": self.versions,
            "summary": self.summary(),
            "where_nothing_else": WHERE_NOTHING_ELSE,
            "began_at": self.began_at.to_string(),
            "seconds": self.took.as_secs_f64(),
            "rounds": self.rounds,
            "service_args": self.service_args,
            "machine": self.machine,
            "targets": self.judged().iter().map(Judged::json).collect::<Vec<_>>(),
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
        })
    }
}
