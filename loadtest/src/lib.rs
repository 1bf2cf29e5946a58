//! Load tester for recsys-ingest.
//!
//! Posts made-up events, measures how they are answered, and checks each of them
//! against the tables. `run` knows the service by its contract: its check takes
//! names and hashes from the service's code, and nothing that handles events.
//! `compare`, which measures and does not judge rows, takes the encoder too.
//!
//! Modules stand in the order in which an event meets them. The library is for
//! the service's benchmarks, which measure with the same events: see [`sample`].

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")
)]

mod service;

mod options;

mod generate;
mod supply;

mod answer;
mod client;
mod run;

mod check;
mod page;
mod report;

mod compare;
mod sweep;

pub mod sample;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use check::Checker;
use compare::CompareOptions;
use options::RunOptions;
use report::{Report, Tally};
use run::{Job, Stop, stopped};
use sweep::SweepOptions;

/// Load generator and checker for recsys-ingest.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Post events, measure, and check every one of them against the tables.
    Run(Box<RunOptions>),
    /// Measure the service against COPY of the same rows, side by side on this machine.
    Compare(Box<CompareOptions>),
    /// Find the highest rate that is held with a p99 below a bound.
    Sweep(Box<SweepOptions>),
    /// Answer everything at once; `compare` measures against it.
    #[command(name = compare::EMPTY_HANDLER, hide = true)]
    EmptyHandler,
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let code = |good| match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    let result = match Cli::parse().command {
        Command::Run(options) => {
            let stop = Stop::default();
            block_on(options.threads, until_stopped(&stop, load(&options, &stop)))
        }
        Command::Compare(options) => {
            let (stop, threads) = (Stop::default(), options.threads);
            let compared = compare::compare(*options, &stop);
            block_on(threads, until_stopped(&stop, compared)).map(code)
        }
        Command::Sweep(options) => {
            let stop = Stop::default();
            let sweep = sweep::sweep(&options, &stop);
            block_on(options.run.threads, until_stopped(&stop, sweep)).map(code)
        }
        // As many threads as the service has.
        Command::EmptyHandler => block_on(0, compare::serve_empty()).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// Runs `work` on this many threads; on as many as there are cores if it is none.
fn block_on<T>(threads: u16, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        runtime.worker_threads(usize::from(threads));
    }
    let runtime = runtime.enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

/// Does `work`, which ends early once `stop` is set; a second signal gives it up.
async fn until_stopped<T>(
    stop: &Stop,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        error = stopped(stop, 2) => Err(error),
    }
}

/// All that could be checked is well, but rows are still in the service's spool.
const UNFINISHED: u8 = 3;

/// Runs, reports, and says whether all is well.
async fn load(options: &RunOptions, stop: &Stop) -> anyhow::Result<ExitCode> {
    let job = Arc::new(options.job(jiff::Timestamp::now(), rand::random(), stop)?);
    let mut checker = match &options.database_url {
        Some(url) => Some(Checker::before(url, &job.plan, options.salt.as_deref()).await?),
        None => None,
    };
    let passes = post(options, &job).await?;
    let findings = match &mut checker {
        Some(checker) => {
            let spooled = async || job.target.spooled().await;
            let patience = options.patience();
            Some(checker.after(&job.plan, &passes, patience, spooled).await?)
        }
        None => None,
    };
    let report = Report {
        job: &job,
        passes,
        findings,
        thresholds: options.thresholds,
        version: job.target.version().await,
    };
    options.outputs.say(&report.render());
    options.outputs.write(&report.json())?;
    if let Some(checker) = checker.as_mut().filter(|_| options.cleanup) {
        let removed = checker.cleanup(&job.plan).await?;
        options
            .outputs
            .say(&format!("{removed} rows of the run are removed\n"));
    }
    Ok(match (report.failures().is_empty(), report.unfinished()) {
        (true, None) => ExitCode::SUCCESS,
        (true, Some(_)) => ExitCode::from(UNFINISHED),
        (false, _) => ExitCode::FAILURE,
    })
}

async fn post(options: &RunOptions, job: &Arc<Job>) -> anyhow::Result<Vec<Tally>> {
    let style = ProgressStyle::with_template(
        "{prefix} {bar:30} {human_pos}/{human_len} events  {per_sec}  {elapsed}",
    )
    .expect("the template is a constant");
    let mut passes: Vec<Tally> = Vec::new();
    for number in 1..=options.repeat {
        let bar = ProgressBar::new(job.plan.settings.events.into())
            .with_style(style.clone())
            .with_prefix(format!("pass {number}/{}", options.repeat));
        let made = job.make().await;
        bar.reset_elapsed();
        let pass = job.post(made, &bar).await?;
        bar.finish_and_clear();
        let unfinished = pass.unfinished;
        passes.push(pass);
        if unfinished {
            break;
        }
    }
    Ok(passes)
}
