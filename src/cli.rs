//! The commands.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Database, Dev, Log, LogFormat, Serve};
use crate::store::Session;
use crate::{dev, service};

mod partitions;
mod quarantine;
mod spool;
mod tenants;
mod verify;

pub use partitions::PartitionsCommand;
pub use quarantine::{QuarantineCommand, QuarantineRows};
pub use spool::SpoolCommand;
pub use tenants::{KeyAccess, KeysCommand, TenantsCommand};
pub use verify::Verify;

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
    #[allow(missing_docs, reason = "documented on its type")]
    pub log: Log,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: a private Postgres, a tenant, keys, and the service
    Dev(Dev),
    /// Run the service
    Serve(Box<Serve>),
    /// Bring the database's schema up to date
    Migrate(Database),
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
    /// Rows that Postgres refused, or that wait for a partition
    Quarantine {
        /// What to do with them.
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Check that every accepted row is in Postgres, in quarantine or in the spool; changes nothing, exits with 1 on a difference
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
}

/// Carries out a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Dev(config) => dev::run(config, stop_signal()?).await,
        Command::Serve(config) => {
            let listener = bind(config.http.listen).await?;
            let ready = CancellationToken::new();
            let report = service::run(*config, listener, stop_signal()?, ready).await?;
            print(&serde_json::to_string(&report)?)
        }
        Command::Migrate(database) => service::migrate_once(&database.target()?).await,
        Command::Tenants { command } => tenants::tenants(command).await,
        Command::Keys { command } => tenants::keys(command).await,
        Command::Quarantine { command } => quarantine::run(command).await,
        Command::Verify(verify) => verify::run(verify).await,
        Command::Spool { command } => spool::run(&command),
        Command::Partitions { command } => partitions::run(command).await,
    }
}

/// A socket that listens, or a sentence that says why not.
pub(crate) async fn bind(address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; if another program has the port, choose one with --listen"
        )
    })
}

/// Cancelled by the first Ctrl-C or SIGTERM.
fn stop_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stopping = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let stop = stopping.clone();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
    let _signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(stopping)
}

/// Sets the log up; once, before anything is logged.
pub fn start_log(log: &Log) -> Result<()> {
    use tracing_subscriber::EnvFilter;
    // What the migration library tells at info is said again by us, in our words.
    let filter = EnvFilter::try_new(format!(
        "refinery_core=warn,tokio_postgres=warn,{}",
        log.log_level
    ))
    .with_context(|| format!("'{}' is not a level or filter for the log", log.log_level))?;
    // Answers go to standard output, the log does not.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Pretty => builder.with_target(false).init(),
    }
    Ok(())
}

async fn open(database: &Database) -> Result<Session> {
    Session::open(&database.target()?, Some(Duration::from_secs(60)))
        .await
        .map_err(|trouble| anyhow::anyhow!("{}", crate::store::Chain(&trouble)))
}

/// Prints an answer; a reader that closed the pipe early has read enough.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
