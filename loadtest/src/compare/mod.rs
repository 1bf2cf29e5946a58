//! `compare`: the service against COPY, in one run on one machine.
//!
//! Unlike the rest of the load tester, this part leans on the service's own code
//! on purpose: it starts a Postgres with its launcher and has its encoder make
//! the rows, so that every way loads the very same ones. That they are the same
//! is checked against what the service stores.
//!
//! Modules in reading order: what a load costs (`process`, `sample`, `machine`),
//! who takes part (`child`, `empty`, `stage`), what is loaded (`workload`,
//! `rows`, `suite`), the ways (`way`, `copy`, `http`), all of them in turn
//! (`rig`, `growth`, `baseline`), and what it comes to (`asks`, `outcome`, `text`, `html`).

mod asks;
mod baseline;
mod child;
mod copy;
pub(crate) mod empty;
mod growth;
mod html;
mod http;
mod machine;
mod options;
mod outcome;
mod process;
mod rig;
mod rows;
mod sample;
mod stage;
mod suite;
#[cfg(test)]
mod tests;
mod text;
mod way;
mod workload;

use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use recsys_ingest::event::time::Micros;
use tokio::signal::unix::{SignalKind, signal};

use baseline::Pair;
use growth::Growth;
use machine::Machine;
pub(crate) use options::CompareOptions;
use outcome::{Outcome, Section};
use rig::Rig;
use stage::{Setup, Stage};

/// Compares, reports, and says whether all is as it should be.
pub(crate) async fn compare(options: &CompareOptions) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Whoever stops us early gets the server and the service stopped with us.
    let outcome = tokio::select! {
        outcome = measure(options) => outcome?,
        _ = terminate.recv() => anyhow::bail!("stopped before the end"),
        _ = interrupt.recv() => anyhow::bail!("stopped before the end"),
    };
    print!("{}", text::render(&outcome));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&outcome.json())?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write the figures to {}", path.display()))?;
    }
    if let Some(path) = &options.html {
        std::fs::write(path, html::render(&outcome))
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    Ok(!options.strict || outcome.is_met())
}

async fn measure(options: &CompareOptions) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let now = Timestamp::now();
    let bar = progress();
    bar.set_message("starting PostgreSQL and the service");
    let setup = Setup {
        dir: &options.dir,
        pg_bin: options.pg_bin.clone(),
        service: options.service.as_deref(),
        arguments: &options.service_args,
        now: Micros(now.as_microsecond()),
        migrates_itself: options.baseline.is_some(),
    };
    let mut stage = Stage::set(&setup).await?;
    let machine = Machine::look(stage.dir(), stage.postgres_version().await?)?;
    let (sections, stage) = if options.growth {
        raise_open_files()?;
        let progress = |what: &str| bar.set_message(what.to_owned());
        let day_us = workload::day_of(now)?;
        let growth = Growth::new(&mut stage, options, day_us, &progress);
        (growth.run().await?, stage)
    } else if let Some(program) = &options.baseline {
        let mut baseline = Stage::set(&Setup {
            service: Some(program),
            ..setup
        })
        .await?;
        stage.start_service(&[]).await?;
        baseline.start_service(&[]).await?;
        let pair = Pair {
            stages: [&stage, &baseline],
            options,
            day_us: workload::day_of(now)?,
        };
        let sections = pair.run(|what| bar.set_message(what.to_owned())).await?;
        baseline.strike().await?;
        (sections, stage)
    } else {
        stage.start_service(&[]).await?;
        rounds(stage, options, now, &bar).await?
    };
    stage.strike().await?;
    bar.finish_and_clear();
    Ok(Outcome {
        machine,
        began_at: now,
        took: began.elapsed(),
        rounds: options.rounds(),
        service_args: options.service_args.clone(),
        sections,
    })
}

/// Every way in turn, round after round.
async fn rounds(
    stage: Stage,
    options: &CompareOptions,
    now: Timestamp,
    bar: &ProgressBar,
) -> anyhow::Result<(Vec<Section>, Stage)> {
    bar.set_message("making rows");
    let day_us = workload::day_of(now)?;
    let mut rig = Rig::prepare(stage, options, day_us, Micros(now.as_microsecond())).await?;
    for round in 1..=options.rounds() {
        rig.round(|what| bar.set_message(format!("round {round} of {}: {what}", options.rounds())))
            .await?;
    }
    let sections = rig.entries.into_iter().map(Section::of_entry).collect();
    Ok((sections, rig.stage))
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

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
        .expect("the template is a constant");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}
