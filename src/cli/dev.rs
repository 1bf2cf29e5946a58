//! `recsys-ingest dev`: the service with a private PostgreSQL, for a machine without one.
//!
//! Postgres starts first and stops last. The data directory holds what a later start needs: the
//! cluster, the spool, the keys.

pub(crate) mod env_file;
mod greeting;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as _;
use private_postgres::{
    LaunchError, Options, PrivatePostgres, default_cache_dir, make_private_dir,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cli::signals::Stop;
use crate::cli::terminal::print;
use crate::clock;
use crate::config::Serve;
use crate::config::address::ListenAddress;
use crate::config::dev::Dev;
use crate::config::environment::variables;
use crate::event::table::Table;
use crate::logging;
use crate::partitions::create::ensure_ahead;
use crate::partitions::layout::read_interval;
use crate::postgres::checks::clock::server_time;
use crate::postgres::connect::environment::LibpqEnvironment;
use crate::postgres::session::Session;
use crate::service;
use crate::service::bind::{LISTEN, bind};
use crate::tenants::admin;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::role::Role;

use env_file::EnvFile;
use greeting::greeting;

/// The tenant of a new data directory.
const TENANT: &str = "demo";

/// The file with what another terminal needs.
const DEV_ENV: &str = "dev.env";

/// The tenant's keys: variable and role.
const KEYS: [(&str, Role); 4] = [
    ("INGEST_API_KEY", Role::Ingest),
    ("INGEST_SERVICE_KEY", Role::Service),
    ("INGEST_PUBLISH_KEY", Role::Publish),
    ("INGEST_ADMIN_KEY", Role::Admin),
];

/// Variables of `dev.env` that are no settings.
pub(crate) const VARIABLES: [&str; 6] = [
    "INGEST_URL", "INGEST_PSQL", KEYS[0].0, KEYS[1].0, KEYS[2].0, KEYS[3].0,
];

/// Variables of settings that `dev` has its own value for.
const OWN: [&str; 7] = [
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "API_KEY_HASH_SECRET",
    "API_KEY_HASH_SECRET_FILE",
    "EXPOSURE_HASH_SALT",
    "EXPOSURE_HASH_SALT_FILE",
    "INGEST_SPOOL_DIR",
];

/// Longest wait for the log before the greeting, which is to be the last thing on the screen.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// How long a stop waits for a PostgreSQL that is still starting: long enough to end a server that
/// has just been started, but not for a download.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Settings for a day's work on a laptop; docs/postgres.md has those for a server.
pub const POSTGRES_SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "256MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "off"),
];

/// Runs Postgres and the service until told to stop.
///
/// Once Postgres runs, it is stopped before this returns.
pub async fn run(config: Dev, stop: Stop) -> Result<()> {
    // Steps that fail quickly come first.
    let listeners = bind(LISTEN, &config.listen)?;
    let address = reachable(&listeners)?;
    make_private_dir(&config.data_dir)?;
    let dir = fs::canonicalize(&config.data_dir)
        .with_context(|| format!("cannot find {}", config.data_dir.display()))?;

    let (taken, own) = inherited();
    if !taken.is_empty() || !own.is_empty() {
        info!(
            taken = taken.join(" "),
            own = own.join(" "),
            "settings of serve in the environment; dev has its own of the latter"
        );
    }
    let options = postgres_options(&config, &dir);
    info!("starting PostgreSQL in {}", dir.display());
    // Blocks on a process that starts, and perhaps on a download.
    let begun = stop.begun().clone();
    let starting = tokio::task::spawn_blocking(move || {
        PrivatePostgres::start_unless(&options, &|| begun.is_cancelled())
    });
    let given_up = async {
        stop.begun().cancelled().await;
        tokio::time::sleep(START_PATIENCE).await;
    };
    let started = tokio::select! {
        started = starting => started.context("the start of PostgreSQL failed")?,
        () = given_up => Err(LaunchError::GivenUp),
    };
    let server = match started {
        Err(LaunchError::GivenUp) => return Ok(()),
        started => started?,
    };
    info!(version = server.version(), programs = %server.bin_dir().display(), "PostgreSQL runs");

    // A run that was killed leaves its file behind, and a program that waits for the new file would
    // read an address that no longer answers. It is removed only once PostgreSQL runs: until then
    // another `dev` may hold the lock of the directory.
    forget_dev_env(&dir)?;

    let stopping = stop.begun().clone();
    let hosts = allowed_hosts(address, &config.allow_host);
    // As it was given: relative to the folder that the reader is in, and short.
    let dev_env = config.data_dir.join(DEV_ENV);
    let outcome = tokio::select! {
        outcome = serve(&dir, &dev_env, address, hosts, listeners, &server, stopping) => outcome,
        () = stop.at_once().cancelled() => Ok(()),
    };
    let forgotten = forget_dev_env(&dir);
    let stopped =
        tokio::task::spawn_blocking(move || server.stop_unless(&|| stop.at_once().is_cancelled()))
            .await
            .context("the stop of PostgreSQL failed")?;
    outcome?;
    stopped?;
    forgotten?;
    info!("PostgreSQL is stopped; the data stays in {}", dir.display());
    Ok(())
}

/// An address under which this machine's programs reach the first socket.
fn reachable(listeners: &[TcpListener]) -> Result<SocketAddr> {
    let first = listeners.first().context("--listen names no address")?;
    let mut address = first
        .local_addr()
        .context("cannot tell the address of the socket")?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.is_ipv4() {
            true => IpAddr::from(Ipv4Addr::LOCALHOST),
            false => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

/// The hosts that requests may name, where the address is this machine's alone: a website may have
/// its own name resolve to it, and would then reach the service from a browser on this machine.
fn allowed_hosts(address: SocketAddr, more: &[String]) -> Option<Vec<String>> {
    address.ip().is_loopback().then(|| {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        own.into_iter()
            .chain([address.to_string()])
            .chain(more.iter().cloned())
            .collect()
    })
}

/// Whether only this machine's own programs reach the service: its live page then needs no key.
fn is_private(listeners: &[TcpListener], operators: Option<&ListenAddress>) -> bool {
    let own = |address: std::io::Result<SocketAddr>| {
        address.is_ok_and(|address| address.ip().is_loopback())
    };
    let is_own = |listens: &ListenAddress| {
        let resolved = listens.resolve();
        resolved.is_ok_and(|all| all.into_iter().all(|address| own(Ok(address))))
    };
    listeners.iter().all(|listener| own(listener.local_addr())) && operators.is_none_or(is_own)
}

/// Removes `dev.env`: it exists only while the service is ready.
fn forget_dev_env(dir: &Path) -> Result<()> {
    let path = dir.join(DEV_ENV);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

async fn serve(
    dir: &Path,
    dev_env: &Path,
    address: SocketAddr,
    hosts: Option<Vec<String>>,
    listeners: Vec<TcpListener>,
    server: &PrivatePostgres,
    stopping: CancellationToken,
) -> Result<()> {
    let secrets = secrets(dir)?;
    let mut environment = environment(&secrets, dir, address, server);
    let mut serve = serve_settings(&environment, address, &dir.join("spool"))?;
    // The variables of libpq are those of another server.
    serve.database.libpq = LibpqEnvironment::default();
    serve.transport.hosts = hosts;
    let operators = serve.transport.ops_listen.clone();
    if is_private(&listeners, operators.as_ref()) {
        serve.transport.env_file = Some(dir.join("dev.env"));
    }
    if serve.transport.tls_cert.is_some() {
        environment.set("INGEST_URL", &format!("https://{address}"));
    }
    let target = serve.database.target()?;
    let prepared = async {
        service::prepare::migrate_once(&target).await?;
        make_tenant_and_keys(&serve, &environment).await?;
        make_partitions(&serve).await
    };
    match stopping.run_until_cancelled(prepared).await {
        Some(prepared) => prepared?,
        None => return Ok(()),
    }

    let ready = CancellationToken::new();
    let service = service::run(serve, listeners, stopping, ready.clone());
    let announced = async {
        ready.cancelled().await;
        let path = dir.join(DEV_ENV);
        environment
            .write_exported(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let url = environment.get("INGEST_URL").unwrap_or_default();
        logging::flush(LOG_LIMIT);
        say(&greeting(url, operators.as_ref(), dev_env, clock::now()));
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        outcome = service => {
            say(&serde_json::to_string(&outcome?)?);
            Ok(())
        }
        failed = announced => failed,
    }
}

fn postgres_options(config: &Dev, dir: &Path) -> Options {
    Options {
        bin_dir: config.pg_bin.clone(),
        cache_dir: config.pg_cache.clone().or_else(|| {
            default_cache_dir(config.home.as_deref(), config.xdg_cache_home.as_deref())
        }),
        settings: POSTGRES_SETTINGS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Options::new(dir.join("postgres"))
    }
}

/// The secrets of this data directory, made at the first start and kept, so that keys and hashes
/// stay the same.
fn secrets(dir: &Path) -> Result<EnvFile> {
    let path: PathBuf = dir.join("secrets.env");
    let read = || format!("cannot read {}", path.display());
    let mut secrets = EnvFile::read(&path).with_context(read)?;
    for (name, role) in KEYS {
        secrets.get_or_insert_with(name, || format!("rik_{}_{}", role.name(), random_hex()));
    }
    for name in ["API_KEY_HASH_SECRET", "EXPOSURE_HASH_SALT"] {
        secrets.get_or_insert_with(name, random_hex);
    }
    secrets
        .write(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(secrets)
}

fn random_hex() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// The contents of `dev.env`.
fn environment(
    secrets: &EnvFile,
    dir: &Path,
    address: SocketAddr,
    server: &PrivatePostgres,
) -> EnvFile {
    let mut environment = EnvFile::default();
    environment.set("INGEST_URL", &format!("http://{address}"));
    environment.set("DATABASE_URL", &server.url());
    for name in KEYS
        .map(|(name, _)| name)
        .into_iter()
        .chain(["API_KEY_HASH_SECRET", "EXPOSURE_HASH_SALT"])
    {
        environment.set(name, secrets.get(name).unwrap_or_default());
    }
    let psql = server.bin_dir().join("psql");
    // So that `verify` and `doctor` look at this one. A second service needs another.
    environment.set("INGEST_SPOOL_DIR", &dir.join("spool").display().to_string());
    environment.set("INGEST_PSQL", &psql.display().to_string());
    environment
}

/// The settings of `serve`: those of `environment`; for the rest, the process's environment or the
/// defaults.
fn serve_settings(environment: &EnvFile, address: SocketAddr, spool: &Path) -> Result<Serve> {
    let get = |name| environment.get(name).unwrap_or_default();
    Ok(Serve::parse_from([
        "--listen",
        &address.to_string(),
        "--database-url",
        get("DATABASE_URL"),
        "--api-key-hash-secret",
        get("API_KEY_HASH_SECRET"),
        "--exposure-hash-salt",
        get("EXPOSURE_HASH_SALT"),
        "--spool-dir",
        &spool.to_string_lossy(),
    ])?)
}

async fn make_tenant_and_keys(serve: &Serve, environment: &EnvFile) -> Result<()> {
    let mut session = Session::open(&serve.database.target()?, None).await?;
    let client = &mut session.client;
    let known = admin::tenants::list_tenants(client).await?;
    if !known.iter().any(|entry| entry.tenant.external_id == TENANT) {
        admin::tenants::create_tenant(client, TENANT, "Demo").await?;
    }
    let hasher = ApiKeyHasher::new(serve.secrets.api_key_hash_secret.expose().as_bytes());
    for (name, role) in KEYS {
        let secret = environment.get(name).unwrap_or_default();
        admin::keys::insert_key(client, &hasher, TENANT, Some("dev"), &[role], secret).await?;
    }
    Ok(())
}

/// Makes the partitions that the service would make after its start: it would log each of them
/// after the greeting.
async fn make_partitions(serve: &Serve) -> Result<()> {
    let mut session = Session::open(&serve.database.target()?, None).await?;
    let client = &mut session.client;
    let now = server_time(client).await?;
    for table in Table::ALL {
        let interval = match serve.store.partitioning.partition_interval {
            Some(interval) => interval,
            None => read_interval(client, table).await?,
        };
        let ahead = serve.store.partitions_ahead;
        ensure_ahead(client, table, interval, now.0, ahead).await?;
    }
    Ok(())
}

/// Prints for people; a closed terminal is not an error.
fn say(text: &str) {
    drop(print(text));
}

/// The variables of the environment that are settings of `serve`: those that count here, and those
/// that `dev` has its own of.
fn inherited() -> (Vec<String>, Vec<String>) {
    let command = Serve::augment_args(clap::Command::new("serve"));
    let settings = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()));
    let settings: Vec<String> = settings.collect();
    let names = variables().map(|(name, _)| name);
    let set = names.filter(|name| settings.contains(name));
    set.partition(|name| !OWN.contains(&name.as_str()))
}
