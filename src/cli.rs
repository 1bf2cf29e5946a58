//! The commands.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Database, Dev, Log, LogFormat, Secrets, Serve};
use crate::store::directory::{self, ApiKeyHasher, Role};
use crate::store::quarantine::admin::{self, Selection};
use crate::store::{self, Session, partition};
use crate::{dev, service, spool};

mod partitions;

pub use partitions::PartitionsCommand;

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

/// What to do with rows in quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List the latest rows
    List {
        /// Most rows to show
        #[arg(long, default_value_t = 100)]
        limit: i64,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
    /// Show one row, with all its columns as JSON
    Show {
        /// The row's number
        id: i64,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
    /// Try to store rows again, one by one
    Retry {
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        rows: QuarantineRows,
        /// Time that one partition holds, for partitions that have to be made: day, week or month
        #[arg(long, env = "INGEST_PARTITION_INTERVAL", default_value = "day")]
        partition_interval: partition::Interval,
    },
    /// Throw rows away, for good
    Drop(QuarantineRows),
}

/// Which rows of the quarantine are meant.
#[derive(Args, Debug)]
pub struct QuarantineRows {
    /// The rows' numbers
    #[arg(required_unless_present_any = ["all", "code"], conflicts_with_all = ["all", "code"])]
    ids: Vec<i64>,
    /// All rows
    #[arg(long, conflicts_with = "code")]
    all: bool,
    /// All rows with this SQLSTATE, such as 23514
    #[arg(long)]
    code: Option<String>,
    #[command(flatten)]
    database: Database,
}

impl QuarantineRows {
    fn selection(&self) -> Selection {
        match (&self.code, self.all) {
            (Some(code), _) => Selection::Code(code.clone()),
            (None, true) => Selection::All,
            (None, false) => Selection::Ids(self.ids.clone()),
        }
    }
}

/// What to check.
#[derive(Args, Debug)]
pub struct Verify {
    /// Directory of the spool whose instance is checked
    #[arg(
        long,
        env = "INGEST_SPOOL_DIR",
        default_value = "spool",
        value_name = "DIR"
    )]
    pub spool_dir: std::path::PathBuf,
    /// Only compare spool and ledger; counting the rows of large tables takes a while
    #[arg(long)]
    pub skip_tables: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
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
            let ready = CancellationToken::new();
            let report = service::run(*config, listener, stop_signal()?, ready).await?;
            print(&serde_json::to_string(&report)?)
        }
        Command::Migrate(database) => service::migrate_once(&database.target()?).await,
        Command::Tenants { command } => tenants(command).await,
        Command::Keys { command } => keys(command).await,
        Command::Quarantine { command } => quarantine(command).await,
        Command::Verify(verify) => self::verify(verify).await,
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

async fn tenants(command: TenantsCommand) -> Result<()> {
    match command {
        TenantsCommand::Create {
            external_id,
            name,
            database,
        } => {
            let session = open(&database).await?;
            let name = name.as_deref().unwrap_or(&external_id);
            let tenant =
                directory::admin::create_tenant(&session.client, &external_id, name).await?;
            print(&format!("{}\t{}", tenant.id, tenant.external_id))
        }
        TenantsCommand::List(database) => {
            let session = open(&database).await?;
            let mut lines = vec!["id\texternal_id\tstatus\tname".to_owned()];
            for entry in directory::admin::list_tenants(&session.client).await? {
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
            let key = directory::admin::create_key(
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
            for entry in directory::admin::list_keys(&session.client, tenant.as_deref()).await? {
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
            let id = directory::admin::revoke_key(&session.client, &key).await?;
            print(&format!("{id}\trevoked"))
        }
    }
}

async fn quarantine(command: QuarantineCommand) -> Result<()> {
    match command {
        QuarantineCommand::List { limit, database } => {
            let session = open(&database).await?;
            let mut lines =
                vec!["id\tat\ttable\ttenant\tevent_id\tcode\tplace\tmessage".to_owned()];
            for entry in admin::list(&session.client, limit).await? {
                lines.push(format!(
                    "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                    entry.id,
                    entry.at,
                    entry.table,
                    entry.tenant,
                    entry.event_id,
                    entry.sqlstate,
                    entry.place.as_deref().unwrap_or("-"),
                    entry.message
                ));
            }
            print(&lines.join("\n"))
        }
        QuarantineCommand::Show { id, database } => {
            let session = open(&database).await?;
            let entry = admin::show(&session.client, id).await?;
            let row: serde_json::Value = serde_json::from_str(&entry.row)?;
            print(&format!(
                "{} of {} was set aside at {} with {}: {}\n{}",
                entry.event_id,
                entry.table,
                entry.at,
                entry.sqlstate,
                entry.message,
                serde_json::to_string_pretty(&row)?
            ))
        }
        QuarantineCommand::Retry {
            rows,
            partition_interval,
        } => {
            let mut session = open(&rows.database).await?;
            let retried =
                admin::retry(&mut session.client, &rows.selection(), partition_interval).await?;
            for (id, words) in &retried.refused {
                eprintln!("row {id} is still refused: {words}");
            }
            print(&format!(
                "{} stored, {} were stored already, {} still refused",
                retried.stored,
                retried.duplicates,
                retried.refused.len()
            ))
        }
        QuarantineCommand::Drop(rows) => {
            let mut session = open(&rows.database).await?;
            let dropped = admin::discard(&mut session.client, &rows.selection()).await?;
            print(&format!("{dropped} dropped"))
        }
    }
}

/// Compares what was accepted with what became of it.
async fn verify(verify: Verify) -> Result<()> {
    let instance = spool::inspect(&verify.spool_dir)?
        .instance
        .with_context(|| format!("there is no spool in {}", verify.spool_dir.display()))?;
    let mut session = open(&verify.database).await?;
    // The ledger first: what is accepted meanwhile then counts as spooled.
    let ledger = store::verify::read(&mut session.client, instance, !verify.skip_tables).await?;
    let settled: Vec<_> = ledger
        .streams
        .iter()
        .map(|(stream, totals)| (*stream, totals.settled))
        .collect();
    let account = spool::account(&verify.spool_dir, &settled)?;
    let mut differences = 0;
    let mut compare = |what: String, found: i128, expected: i128| {
        let verdict = if found == expected {
            "ok".to_owned()
        } else {
            differences += 1;
            format!("DIFFERS by {}", found - expected)
        };
        print(&format!("{what}: {found} of {expected}, {verdict}"))
    };
    for stream in account {
        let totals = ledger
            .streams
            .iter()
            .find(|(number, _)| *number == stream.number);
        let totals = totals.map(|(_, totals)| *totals).unwrap_or_default();
        compare(
            format!(
                "{} lane {}: stored {} + duplicates {} + quarantined {} + spooled {} = accepted",
                crate::queue::table_of(stream.number),
                stream.number / 2,
                totals.stored,
                totals.duplicates,
                totals.quarantined,
                stream.unsettled
            ),
            i128::from(totals.rows() + stream.unsettled),
            i128::from(stream.accepted),
        )?;
    }
    for check in &ledger.tables {
        let what = format!(
            "{}: rows in the table, as all instances stored",
            check.table
        );
        compare(what, check.counted.into(), check.stored.into())?;
    }
    if let Some((counted, expected)) = ledger.quarantine {
        compare(
            "ingest_quarantine: rows, as the ledger says".into(),
            counted.into(),
            expected.into(),
        )?;
    }
    anyhow::ensure!(
        differences == 0,
        "{differences} of the accounts differ; see above"
    );
    Ok(())
}

/// Prints an answer; a reader that closed the pipe early has read enough.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
