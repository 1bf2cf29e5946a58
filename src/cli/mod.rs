//! The command line: its commands, and how each of them is run.

pub(crate) mod adopt;
mod advice;
pub(crate) mod demo;
pub mod dev;
pub(crate) mod doctor;
pub mod help;
pub(crate) mod import;
pub(crate) mod item_signals;
pub(crate) mod keys;
pub(crate) mod manual;
pub(crate) mod migrate;
pub(crate) mod own_pipeline;
pub(crate) mod partitions;
pub(crate) mod period;
pub(crate) mod progress;
pub(crate) mod quarantine;
pub(crate) mod report;
pub(crate) mod settings;
pub(crate) mod ship;
pub(crate) mod shipping;
pub(crate) mod signals;
pub(crate) mod spool;
pub(crate) mod tap;
pub(crate) mod tenants;
pub(crate) mod terminal;
pub(crate) mod users;
pub(crate) mod verify;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::demo::Demo;
use crate::config::dev::Dev;
use crate::config::doctor::Doctor;
use crate::config::import::{Import, Ship};
use crate::config::log::{Log, LogFormat};
use crate::config::tap::Tap;
use crate::config::{Serve, environment};
use crate::postgres::session::sessions_ended;
use crate::service::bind::{LISTEN, bind};
use crate::service::engine::{Engine, LocalSpool};
use crate::{logging, service};
use terminal::print;

use adopt::Adopt;
use advice::with_advice;
use item_signals::Signals;
use keys::KeysCommand;
use manual::{Completions, Man};
use migrate::Migrate;
use partitions::PartitionsCommand;
use quarantine::QuarantineCommand;
use report::ReportCommand;
use signals::Stop;
use spool::SpoolCommand;
use tenants::TenantsCommand;
use users::UsersCommand;
use verify::{COULD_NOT_LOOK, CouldNotLook, Verify};

/// After a second signal, `dev` has this long to stop its Postgres without a checkpoint: the server
/// itself takes five seconds for stubborn sessions.
const DEV_PATIENCE: Duration = Duration::from_secs(20);

/// Longest wait for the sessions with Postgres to close when a command is done.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);
/// The same if the grace of a stop was too short: it is to bound the whole stop.
const GOODBYE_LIMIT_LATE: Duration = Duration::from_secs(1);
const GOODBYE_LIMIT_AT_ONCE: Duration = Duration::from_millis(200);

/// Takes recommendation exposures and interactions over HTTP into partitioned Postgres tables.
#[derive(Debug, Parser)]
#[command(
    name = "recsys-ingest",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub log: Log,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: a private Postgres, a tenant, keys, and the service
    Dev(Dev),
    /// Run the service
    Serve(Box<Serve>),
    /// Post files of events to a running service
    ///
    /// JSON lines of any known format, plain or compressed. Run again, it goes on where it was.
    /// Exits with 0 if every line was taken, 1 if it is not done and has to be run again, 3 if it is
    /// done and lines were rejected.
    Import(Box<Import>),
    /// Follow files of events as they grow, and post what is added
    ///
    /// As recsys-service writes them, for one: through rotation, truncation and crashes.
    Ship(Box<Ship>),
    /// Play a small shop against a running service, and show what Postgres holds of it
    ///
    /// Lists are served, shown, clicked and bought from. Exits with 1 if Postgres holds anything else.
    Demo(Box<Demo>),
    /// Print what becomes of each body that a running service is sent, as it comes
    Tap(Box<Tap>),
    /// Bring the database's schema up to date
    ///
    /// A service does it at its start as well (--migrate-on-start). Views, functions and indexes that
    /// were dropped since are made again, which a service does not do; a table that is gone is named.
    /// With nothing to do it says so and needs no more than SELECT on the history.
    Migrate(Migrate),
    /// Remove from the event tables what the suite's migrations add and every row pays for
    ///
    /// Indexes of the parents beside their keys, and empty DEFAULT partitions. Shows the SQL;
    /// --lean runs it.
    Adopt(Adopt),
    /// Tenants: who events belong to
    Tenants {
        /// What to do with them.
        #[command(subcommand)]
        command: TenantsCommand,
    },
    /// API keys: who may post
    Keys {
        /// What to do with them.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// What is stored of a user: export it, or erase it
    Users {
        /// What to do with it.
        #[command(subcommand)]
        command: UsersCommand,
    },
    /// Rows that Postgres refused, or that wait for a partition
    Quarantine {
        /// What to do with them.
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Check that every accepted row is stored, spooled, in quarantine or booked as removed
    ///
    /// Changes nothing, unless --accept books a difference. Exits with 0 if the accounts hold, 1 if
    /// they differ, 2 if it could not look.
    Verify(Verify),
    /// The spool directory of a service that is stopped
    Spool {
        /// What to do with it.
        #[command(subcommand)]
        command: SpoolCommand,
    },
    /// Partitions: where events are kept
    Partitions {
        /// What to do with them.
        #[command(subcommand)]
        command: PartitionsCommand,
    },
    /// Compute item signals: what was shown most often, and what was shown together
    Signals(Box<Signals>),
    /// What the stored events say of the data
    Report {
        /// What to report.
        #[command(subcommand)]
        command: ReportCommand,
    },
    /// Find what is wrong with database and spool, what it costs, and what mends it
    ///
    /// Runs the checks of a service's start and more: gaps of partitions, rows in a DEFAULT
    /// partition, foreign keys, indexes and triggers that every row pays for, settings that hurt,
    /// dead rows, old transactions, clocks, the spool's disk and its age. Reads only, unless --fix
    /// is given. Exits with 0 if nothing was found, 1 if something was, 2 if it could not look.
    Doctor(Box<Doctor>),
    /// Print completions of the command line for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
}

/// Reads the command line, and what it leaves out from the environment.
///
/// # Errors
/// Names the flag and the variable of a value that is missing or refused, and what is accepted; also
/// "fails" with the text of `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> clap::error::Result<Cli> {
    let command = help::explained(Cli::command());
    Cli::from_arg_matches(&environment::read(&command, arguments)?)
}

/// Logs a warning for each environment variable that looks like a setting and is none.
fn warn_of_unknown_variables() {
    let command = Cli::command();
    for warning in environment::unknown(&command, &dev::VARIABLES, environment::variables()) {
        warn!("{warning}");
    }
}

/// Sets the log up, runs the command, and returns the exit code of the process.
///
/// The runtime is here and not in `main.rs`: futures that only the program polls are compiled with
/// the program, and what they share with the library a second time.
///
/// # Errors
/// The error of the command; also if the log or the runtime cannot start.
pub fn run(cli: Cli) -> Result<u8> {
    with_log(&cli.log, || {
        warn_of_unknown_variables();
        run_until_stopped(cli.command)
    })
}

/// [`run`] for a service on another log than the spool.
///
/// # Errors
/// The error of the service; also if the log or the runtime cannot start.
pub fn serve_on<E: Engine + 'static>(engine: E, config: Serve, log: &Log) -> Result<u8> {
    with_log(log, || async {
        let stop = Stop::listen()?;
        let signal = stop.at_once().clone();
        let serving = serve(engine, config, stop.clone());
        until_stopped(
            async { serving.await.map(|()| 0) },
            stop,
            &signal,
            Duration::ZERO,
        )
        .await
    })
}

/// Sets the log up and runs what `make` returns on a runtime.
fn with_log<F>(log: &Log, make: impl FnOnce() -> F) -> Result<u8>
where
    F: Future<Output = Result<u8>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start its threads")?;
    let outcome = start_log(log).and_then(|()| runtime.block_on(make()));
    // Blocking threads that wait for a stalled disk are not waited for.
    runtime.shutdown_background();
    outcome
}

/// Runs a command until it ends or a signal ends the wait for it; returns the exit code.
async fn run_until_stopped(command: Command) -> Result<u8> {
    let stop = Stop::listen()?;
    // The signal after which the wait for the command ends, and how long after it.
    let (signal, patience) = match &command {
        // `dev` stops its Postgres first.
        Command::Dev(_) => (stop.at_once(), DEV_PATIENCE),
        // These end what they have begun.
        Command::Serve(_) | Command::Import(_) | Command::Ship(_) => {
            (stop.at_once(), Duration::ZERO)
        }
        _ => (stop.begun(), Duration::ZERO),
    };
    let signal = signal.clone();
    until_stopped(carry_out(command, stop.clone()), stop, &signal, patience).await
}

/// Waits until `work` ends, or until `patience` after `signal`; returns the exit code.
async fn until_stopped(
    work: impl Future<Output = Result<u8>> + Send + 'static,
    stop: Stop,
    signal: &CancellationToken,
    patience: Duration,
) -> Result<u8> {
    let impatient = async {
        signal.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    // A task, so that a busy command does not delay a signal.
    let mut running = JoinSet::new();
    running.spawn(work);
    let outcome = tokio::select! {
        biased;
        Some(ended) = running.join_next() => Some(ended),
        () = impatient => None,
    };
    drop(running);
    let goodbyes = match (stop.at_once().is_cancelled(), stop.is_late()) {
        (true, _) => GOODBYE_LIMIT_AT_ONCE,
        (false, true) => GOODBYE_LIMIT_LATE,
        (false, false) => GOODBYE_LIMIT,
    };
    sessions_ended(goodbyes).await;
    match outcome {
        Some(Ok(Err(error))) if error.is::<CouldNotLook>() => {
            logging::say(&format!("recsys-ingest: {:#}", with_advice(error)));
            Ok(COULD_NOT_LOOK)
        }
        Some(Ok(Err(error))) => Err(with_advice(error)),
        // A command that a signal interrupted has ended by now, but not as it should.
        _ if signal.is_cancelled() => Ok(stop.exit_code()),
        Some(Ok(Ok(code))) => Ok(code),
        Some(Err(panicked)) => Err(panicked).context("the program has a bug"),
        None => Ok(stop.exit_code()),
    }
}

/// Carries a command out; returns its exit code.
async fn carry_out(command: Command, stop: Stop) -> Result<u8> {
    let done = match command {
        Command::Quarantine { command } => return quarantine::run(command).await,
        Command::Migrate(migrate) => return migrate::run(migrate).await,
        Command::Import(config) => return import::run(*config, stop).await,
        Command::Doctor(doctor) => return doctor::run(*doctor).await,
        Command::Dev(config) => dev::run(config, stop).await,
        Command::Serve(config) => serve(LocalSpool, *config, stop).await,
        Command::Ship(config) => ship::run(*config, stop).await,
        Command::Demo(config) => demo::run(*config).await,
        Command::Tap(config) => tap::run(*config).await,
        Command::Adopt(adopt) => adopt::run(adopt).await,
        Command::Tenants { command } => tenants::run(command).await,
        Command::Keys { command } => keys::run(command).await,
        Command::Users { command } => users::run(command).await,
        Command::Verify(verify) => verify::run(verify).await,
        Command::Spool { command } => spool::run(command).await,
        Command::Partitions { command } => partitions::run(command).await,
        Command::Signals(signals) => item_signals::run(*signals).await,
        Command::Report { command } => report::run(command).await,
        Command::Completions(completions) => {
            manual::completions(&completions, help::explained(Cli::command()))
        }
        Command::Man(man) => manual::write(&man, help::explained(Cli::command())),
    };
    done.map(|()| 0)
}

/// Runs the service and prints its report.
async fn serve<E: Engine>(engine: E, config: Serve, stop: Stop) -> Result<()> {
    if let Some(warning) = config.salt.warning() {
        warn!("{warning}");
    }
    let listeners = bind(LISTEN, &config.http.listen)?;
    let ready = CancellationToken::new();
    let stopping = stop.begun().clone();
    let outcome = service::run_on(engine, config, listeners, stopping, ready).await;
    // The report is printed after a fault as well.
    let report = match &outcome {
        Ok(report) => Some(report),
        Err(error) => error
            .downcast_ref::<service::report::Failed>()
            .map(|failed| &failed.report),
    };
    if let Some(report) = report {
        if !report.in_time {
            stop.note_late();
        }
        print(&serde_json::to_string(report)?)?;
    }
    outcome.map(drop)
}

/// Whether the log has colours: on a terminal that shows them, unless NO_COLOR asks for none.
fn is_coloured() -> bool {
    let mut variables = environment::variables();
    let is_plain =
        variables.any(|(name, value)| name == "NO_COLOR" || (name == "TERM" && value == "dumb"));
    std::io::stderr().is_terminal() && !is_plain
}

/// Sets the log up; called once, before anything is logged.
fn start_log(log: &Log) -> Result<()> {
    use tracing_subscriber::EnvFilter;
    // Errors are logged even if a filter leaves them out, unless it says `off`.
    let filter = EnvFilter::try_new(format!("error,tokio_postgres=warn,{}", log.log_level))
        .with_context(|| format!("'{}' is not a level or filter for the log", log.log_level))?;
    // Results go to standard output, the log to standard error.
    let writer = logging::start().context("cannot start the thread of the log")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_coloured())
        .with_writer(writer);
    match log.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Pretty => builder.with_target(false).init(),
    }
    Ok(())
}
