//! The commands.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Database, Dev, Log, LogFormat, Secrets, Serve};
use crate::event::{Micros, Table};
use crate::store::directory::{ApiKeyHasher, Role, admin};
use crate::store::{Session, partition};
use crate::{dev, service};

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
    /// Partitions: where events are kept
    Partitions {
        /// What to do with them.
        #[command(subcommand)]
        command: PartitionsCommand,
    },
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// Make a tenant
    Create {
        /// The name that events and keys use for it
        external_id: String,
        /// A name for people [default: the external id]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
    /// List all tenants
    List(Database),
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and show it, this once
    Create {
        /// The tenant that the key is for, by external id or UUID
        tenant: String,
        /// What the key may do; may be given several times: ingest (both kinds of event), publish (interactions, safe in a browser), service (both kinds, for any tenant), viewer, operator, admin
        #[arg(long = "role", required = true, value_parser = role)]
        roles: Vec<Role>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// How long the key works, such as 90d [default: until it is revoked]
        #[arg(long, value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        access: KeyAccess,
    },
    /// List keys, without showing them
    List {
        /// Only this tenant's, by external id or UUID
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
    /// Make a key useless, at once for new readers and within --key-refresh for running ones
    Revoke {
        /// The key's id, or the beginning of the key as `list` shows it
        key: String,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
}

/// What it takes to make a key.
#[derive(Args, Debug)]
pub struct KeyAccess {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub secrets: Secrets,
}

/// What to do with partitions.
#[derive(Debug, Subcommand)]
pub enum PartitionsCommand {
    /// List the partitions of both event tables
    List(Database),
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
        format!("a role is one of {}", names.join(", "))
    })
}

/// Carries out a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Dev(config) => dev::run(config, stop_signal()?).await,
        Command::Serve(config) => {
            let listener = bind(config.http.listen).await?;
            service::run(*config, listener, stop_signal()?, CancellationToken::new()).await
        }
        Command::Migrate(database) => service::migrate_once(&database.target()?).await,
        Command::Tenants { command } => tenants(command).await,
        Command::Keys { command } => keys(command).await,
        Command::Partitions {
            command: PartitionsCommand::List(database),
        } => partitions(&database).await,
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

async fn tenants(command: TenantsCommand) -> Result<()> {
    match command {
        TenantsCommand::Create {
            external_id,
            name,
            database,
        } => {
            let session = open(&database).await?;
            let name = name.as_deref().unwrap_or(&external_id);
            let tenant = admin::create_tenant(&session.client, &external_id, name).await?;
            print(&format!("{}\t{}", tenant.id, tenant.external_id))
        }
        TenantsCommand::List(database) => {
            let session = open(&database).await?;
            let mut lines = vec!["id\texternal_id\tstatus\tname".to_owned()];
            for entry in admin::list_tenants(&session.client).await? {
                let tenant = &entry.tenant;
                let status = tenant.status.name();
                lines.push(format!(
                    "{}\t{}\t{status}\t{}",
                    tenant.id, tenant.external_id, entry.name
                ));
            }
            print(&lines.join("\n"))
        }
    }
}

async fn keys(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Create {
            tenant,
            roles,
            name,
            expires_in,
            access,
        } => {
            let session = open(&access.database).await?;
            let hasher = ApiKeyHasher::new(access.secrets.api_key_hash_secret.expose().as_bytes());
            let expires_at = expires_in
                .map(|after| jiff::Timestamp::now().checked_add(after))
                .transpose()
                .context("the key would expire after the end of time")?;
            let key = admin::create_key(
                &session.client,
                &hasher,
                &tenant,
                name.as_deref(),
                &roles,
                expires_at,
            )
            .await?;
            eprintln!("key {} for {tenant}; it is shown this once:", key.id);
            print(&key.secret)
        }
        KeysCommand::List { tenant, database } => {
            let session = open(&database).await?;
            let mut lines = vec!["id\ttenant\tkey\troles\tstate\tname".to_owned()];
            for entry in admin::list_keys(&session.client, tenant.as_deref()).await? {
                let state = match (entry.revoked_at, entry.expires_at) {
                    (Some(at), _) => format!("revoked at {at}"),
                    (None, Some(at)) => format!("until {at}"),
                    (None, None) => "active".to_owned(),
                };
                lines.push(format!(
                    "{}\t{}\t{}…\t{}\t{state}\t{}",
                    entry.id,
                    entry.tenant,
                    entry.key_prefix.as_deref().unwrap_or_default(),
                    entry.roles.join(","),
                    entry.name.as_deref().unwrap_or_default()
                ));
            }
            print(&lines.join("\n"))
        }
        KeysCommand::Revoke { key, database } => {
            let session = open(&database).await?;
            let id = admin::revoke_key(&session.client, &key).await?;
            print(&format!("{id}\trevoked"))
        }
    }
}

async fn partitions(database: &Database) -> Result<()> {
    let mut session = open(database).await?;
    let mut lines = vec!["table\tpartition\tfrom\tto\trows\tbytes".to_owned()];
    for table in Table::ALL {
        for info in partition::list(&mut session.client, table).await? {
            let bound = |us: Option<i64>| us.map_or("-".to_owned(), |us| Micros(us).to_string());
            lines.push(format!(
                "{table}\t{}\t{}\t{}\t{}\t{}",
                info.name,
                bound(info.from_us),
                bound(info.to_us),
                info.rows_estimate
                    .map_or("?".to_owned(), |rows| rows.to_string()),
                info.bytes
            ));
        }
    }
    print(&lines.join("\n"))
}

/// Prints an answer; a reader that closed the pipe early has read enough.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
