//! Load tester for recsys-ingest.
//!
//! Posts made-up events, measures how they are answered, and checks each of them
//! against the tables. `run` knows the service by its contract only: it shares no
//! code with what it checks. `compare`, which measures and does not judge rows,
//! does.
//!
//! Modules stand in the order in which an event meets them.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")
)]

mod options;

mod generate;
mod supply;

mod answer;
mod client;
mod ledger;
mod run;

mod check;
mod report;

mod compare;
mod sweep;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use check::Checker;
use client::Target;
use compare::CompareOptions;
use generate::plan::Plan;
use ledger::Ledger;
use options::RunOptions;
use report::{Pass, Report};
use run::Schedule;
use supply::Supply;
use sweep::SweepOptions;

/// Load generator and checker for recsys-ingest.
#[derive(Debug, Parser)]
#[command(version)]
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
    #[command(name = compare::empty::COMMAND, hide = true)]
    EmptyHandler,
}

fn main() -> ExitCode {
    let is_good = |good| match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    let outcome = match Cli::parse().command {
        Command::Run(options) => block_on(options.threads, load(&options)),
        Command::Compare(options) => {
            block_on(options.threads, compare::compare(&options)).map(is_good)
        }
        Command::Sweep(options) => {
            block_on(options.run.threads, sweep::sweep(&options)).map(is_good)
        }
        Command::EmptyHandler => compare::empty::run().map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs `work` on so many threads.
fn block_on<T>(threads: u16, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(threads))
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// All that could be checked is well, but rows are still in the service's spool.
const UNFINISHED: u8 = 3;

/// Runs, reports, and says whether all is well.
async fn load(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let settings = options.settings(jiff::Timestamp::now(), rand::random())?;
    let plan = Arc::new(Plan::new(&settings)?);
    let target = Target::new(&options.url, options.ack, &settings, &plan)?;
    let ledger = Arc::new(Ledger::new(plan.bodies()));
    let mut checker = match &options.database_url {
        Some(url) => Some(Checker::before(url, &settings, &plan, options.salt.as_deref()).await?),
        None => None,
    };
    let schedule = Schedule {
        connections: usize::from(options.connections),
        rate: options.rate,
        retry: options.retry,
        time_limit: options.time_limit(),
    };
    let passes = post(options, &settings, &plan, &target, &schedule, &ledger).await?;
    let verdict = match &mut checker {
        Some(checker) => {
            let tallies: Vec<_> = passes.iter().map(|pass| pass.tally.clone()).collect();
            let verdict = checker
                .after(
                    &settings,
                    &plan,
                    &ledger,
                    &tallies,
                    options.patience(),
                    async || target.spooled().await,
                )
                .await?;
            Some(verdict)
        }
        None => None,
    };
    let report = Report {
        settings,
        connections: schedule.connections,
        ack: options.ack.as_str(),
        rate: options.rate,
        passes,
        verdict,
    };
    print!("{}", report::text::render(&report));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    Ok(match (report.failures().is_empty(), report.unfinished()) {
        (true, None) => ExitCode::SUCCESS,
        (true, Some(_)) => ExitCode::from(UNFINISHED),
        (false, _) => ExitCode::FAILURE,
    })
}

/// Posts all passes, one after the other.
async fn post(
    options: &RunOptions,
    settings: &generate::settings::Settings,
    plan: &Arc<Plan>,
    target: &Target,
    schedule: &Schedule,
    ledger: &Arc<Ledger>,
) -> anyhow::Result<Vec<Pass>> {
    let bytes_max = options.prepare_mb << 20;
    let mut passes = Vec::new();
    let mut kept = None;
    for number in 1..=options.repeat {
        let bar = progress(options, number);
        let (supply, maker) = match &kept {
            Some(kept) => (Arc::new(Supply::again(kept)), None),
            None => {
                let supply = Arc::new(Supply::new(bytes_max));
                let maker = {
                    let (supply, plan) = (Arc::clone(&supply), Arc::clone(plan));
                    let settings = settings.clone();
                    std::thread::spawn(move || supply.fill(&settings, &plan))
                };
                (supply, Some(maker))
            }
        };
        if maker.is_some() {
            let supply = Arc::clone(&supply);
            tokio::task::spawn_blocking(move || supply.wait_until_full()).await?;
        }
        let made_before = supply.is_complete();
        bar.reset_elapsed();
        let outcome = run::pass(plan, target, schedule, &supply, ledger, &bar).await;
        // Whatever happened, the maker must not wait for us any more.
        supply.abandon();
        bar.finish_and_clear();
        if let Some(maker) = maker {
            kept = maker
                .join()
                .map_err(|_| anyhow::anyhow!("the thread that makes bodies panicked"))?;
        }
        passes.push(Pass::new(outcome?, made_before));
        if passes.last().is_some_and(|pass| !pass.finished) {
            break;
        }
    }
    Ok(passes)
}

/// A bar with the live rate, on a terminal.
fn progress(options: &RunOptions, pass: u16) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix} {bar:30} {human_pos}/{human_len} events  {per_sec}  {elapsed}",
    )
    .expect("the template is a constant");
    let bar = ProgressBar::new(options.events.into()).with_style(style);
    bar.with_prefix(format!("pass {pass}/{}", options.repeat))
}
