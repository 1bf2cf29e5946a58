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

use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::report::{float, versions};
use crate::run::{Stop, stopped};
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

/// Everything that a comparison came to, for the reports to show.
#[derive(Clone, Debug)]
pub struct Comparison {
    machine: Machine,
    began_at: Timestamp,
    took: Duration,
    rounds: u16,
    /// To see that it works, not to quote.
    is_quick: bool,
    versions: Value,
    /// What the service was started with, its defaults apart.
    service_args: Vec<String>,
    sections: Vec<Section>,
}

/// Compares, reports, and says whether all is as it should be.
pub async fn compare(options: CompareOptions) -> anyhow::Result<bool> {
    let options = &options.resolved();
    // A signal ends the server and the service too.
    let stop = Stop::default();
    let comparison = tokio::select! {
        comparison = measure(options) => comparison?,
        error = stopped(&stop, 1) => return Err(error),
    };
    options.outputs.say(&text::render(&comparison));
    options.outputs.write(&comparison.json())?;
    Ok(!options.strict || comparison.judged().iter().all(Judged::is_met))
}

async fn measure(options: &CompareOptions) -> anyhow::Result<Comparison> {
    let (began, now) = (Instant::now(), Timestamp::now());
    let (day_us, micros) = (load::day_of(now), Micros(now.as_microsecond()));
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
        .expect("the template is a constant");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let progress = |what: &str| bar.set_message(what.to_owned());
    progress("starting PostgreSQL and the service");
    let service = options.service.as_deref();
    let mut environment = Environment::new(options, service, micros).await?;
    let postgres = environment.value("SHOW server_version").await?;
    let machine = Machine::look(environment.dir(), postgres)?;
    let sections = if options.growth {
        raise_open_files()?;
        let growth = Growth {
            environment: &mut environment,
            options,
            day_us,
            progress: &progress,
        };
        growth.run().await?
    } else if let Some(program) = &options.baseline {
        let mut baseline = Environment::new(options, Some(program), micros).await?;
        environment.start_service(&[]).await?;
        baseline.start_service(&[]).await?;
        let both = [&environment, &baseline];
        let sections = baseline::run(both, options, day_us, &progress).await?;
        baseline.delete().await?;
        sections
    } else {
        environment.start_service(&[]).await?;
        rounds::run(&environment, options, day_us, micros, &progress).await?
    };
    let environment_version = environment.version();
    environment.delete().await?;
    bar.finish_and_clear();
    Ok(Comparison {
        machine,
        began_at: now,
        took: began.elapsed(),
        rounds: options.rounds,
        is_quick: options.quick,
        versions: versions(environment_version),
        service_args: options.service_args.clone(),
        sections,
    })
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
