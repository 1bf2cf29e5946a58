//! Makes a cluster, and a database in it.
//!
//! Invariant: the cluster directory is complete or absent, because it is renamed into place after
//! `initdb` has succeeded. Both functions do nothing if the cluster or the database exists.
//! Knows nothing of processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::binaries::Binaries;
use crate::error::LaunchError;
use crate::home::{Home, make_owned_dir};
use crate::identity::Identity;

/// A local server that is ready answers within milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Makes the cluster unless it exists.
pub(crate) fn make(
    home: &Home,
    binaries: &Binaries,
    identity: &Identity,
    durable: bool,
) -> Result<(), LaunchError> {
    let cluster = home.cluster();
    if cluster.join("PG_VERSION").exists() {
        return Ok(());
    }
    let mut failed = String::new();
    // C.UTF-8 sorts by code point and knows letters beyond ASCII; older systems lack it.
    for locale in ["C.UTF-8", "C"] {
        let unfinished = cluster.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(LaunchError::io("remove the unfinished", &unfinished))?;
        }
        make_owned_dir(&unfinished, identity)?;
        let program = binaries.dir.join("initdb");
        let mut command = identity.command(&program);
        command
            .arg("-D")
            .arg(&unfinished)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        command
            .arg(format!("--locale={locale}"))
            .arg("--no-instructions");
        if !durable {
            command.arg("--no-sync");
        }
        let output = command.output().map_err(LaunchError::io("run", &program))?;
        if output.status.success() {
            return fs::rename(&unfinished, &cluster)
                .map_err(LaunchError::io("name the new cluster", &cluster));
        }
        failed = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', " | ");
    }
    Err(LaunchError::Failed(format!(
        "cannot make a PostgreSQL cluster in {}: repair what initdb says: {failed}",
        cluster.display()
    )))
}

/// Connects, and makes the database unless it exists.
///
/// Runs on a separate thread: the caller may be inside an async runtime, and `block_on` panics
/// there.
pub(crate) fn make_database(socket_dir: &Path, port: u16, name: &str) -> anyhow::Result<()> {
    let make = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            tokio::time::timeout(ANSWER_LIMIT, connect_and_make(socket_dir, port, name))
                .await
                .context("no answer")?
        })
    };
    std::thread::scope(|scope| scope.spawn(make).join()).expect("making a database does not panic")
}

/// Whether a later attempt may succeed: the server recovers, or does not listen yet.
pub(crate) fn is_transient(error: &anyhow::Error) -> bool {
    let Some(error) = error.downcast_ref::<tokio_postgres::Error>() else {
        return true;
    };
    error.code().is_none_or(|code| {
        [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS].contains(code)
    })
}

async fn connect_and_make(socket_dir: &Path, port: u16, name: &str) -> anyhow::Result<()> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(socket_dir)
        .port(port)
        .user("postgres")
        .dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    let make = async {
        // The connection ends when the client is dropped, so it is moved in here.
        let client = client;
        let found = client
            .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
            .await?;
        if found.is_some() {
            return Ok(());
        }
        let quoted = name.replace('"', "\"\"");
        match client
            .batch_execute(&format!("CREATE DATABASE \"{quoted}\""))
            .await
        {
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_DATABASE) => Ok(()),
            other => other,
        }
    };
    let (made, ended) = tokio::join!(make, connection);
    made.with_context(|| format!("cannot make the database {name}"))?;
    ended.context("the connection broke")
}
