//! The programs that a comparison runs: the service, an empty handler, psql.
//!
//! Keeps one invariant: none of them outlives us, however we end in an orderly way.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use serde_json::Value;

/// Migrations on a machine that is busy.
const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The hidden subcommand that runs the empty handler.
pub const EMPTY_HANDLER: &str = "empty-handler";
/// What the service says to one event at `ack=durable`, byte for byte as long, so
/// that the difference is what the service does.
const EMPTY_ANSWER: &str = r#"{"ack":"durable","accepted":1,"rejected":[]}"#;

/// A program that listens; dropping it ends it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// `http://host:port`
    pub url: String,
}

impl Program {
    /// Starts `recsys-ingest serve` and waits until it takes events.
    pub async fn service(program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command.arg("serve").args(arguments);
        command.args(["--log-format", "json", "--log-level", "info"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(file).spawn();
        let cannot = || format!("cannot start {}: {BUILD_IT}", program.display());
        let mut this = Self {
            child: child.with_context(cannot)?,
            url: String::new(),
        };
        let until = Instant::now() + START_LIMIT;
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines = || {
                text.lines()
                    .filter_map(|line| serde_json::from_str(line).ok())
            };
            let find = |message: &str| lines().find(|line: &Value| line["message"] == message);
            if let (Some(listening), Some(_)) = (find("listening"), find("ready"))
                && let Some(address) = listening["address"].as_str()
            {
                this.url = format!("http://{address}");
                return Ok(this);
            }
            if let Some(status) = this.child.try_wait()? {
                anyhow::bail!("the service ended with {status} before it was ready:\n{text}");
            }
            anyhow::ensure!(
                Instant::now() < until,
                "the service was not ready after {} s:\n{text}",
                START_LIMIT.as_secs()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Starts this program's empty handler and waits until it listens.
    pub fn empty_handler() -> anyhow::Result<Self> {
        let mut command = Command::new(own_file()?);
        command
            .arg(EMPTY_HANDLER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the empty handler")?;
        let stdout = child.stdout.take().context("the empty handler is mute")?;
        let mut address = String::new();
        let read = BufReader::new(stdout).read_line(&mut address);
        let this = Self {
            child,
            url: format!("http://{}", address.trim_end()),
        };
        let length = read.context("cannot read the empty handler's address")?;
        anyhow::ensure!(length > 0, "the empty handler did not start");
        Ok(this)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Nothing that it holds is worth an orderly end, and it may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The empty handler: reads a body and says yes, which is what requests cost at least.
///
/// Listens on a free port, prints it, and serves until standard input ends.
pub async fn serve_empty() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.context("cannot listen on a free port")?;
    println!("{}", listener.local_addr()?);
    let router = Router::new()
        .route("/v1/interactions", post(say_yes))
        .route("/v1/exposures", post(say_yes));
    // The program that started us holds the other end, and lets go of it when it ends.
    let orphaned = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = axum::serve(listener, router) => served.context("cannot serve"),
        _ = orphaned => Ok(()),
    }
}

async fn say_yes(_body: Bytes) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json"),
        ("x-ingest-ack", "durable"),
    ];
    (StatusCode::ACCEPTED, headers, EMPTY_ANSWER)
}

/// Has a build of the service bring a database up to its schema.
pub async fn migrate(program: &Path, url: &str) -> anyhow::Result<()> {
    let arguments = ["migrate", "--database-url", url];
    let migrated = run_to_end(program, &arguments);
    let migrated = tokio::time::timeout(START_LIMIT, migrated).await;
    migrated.context("the migration takes too long")?.map(drop)
}

/// Has psql do what `command` says, and says how long it took, its start included.
pub async fn psql(psql: &Path, url: &str, command: &str) -> anyhow::Result<Duration> {
    let arguments = [
        "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", command,
    ];
    run_to_end(psql, &arguments).await
}

/// Runs a program, which must succeed, and says how long it took. Once it is waited for here,
/// its CPU counts as ours.
async fn run_to_end(program: &Path, arguments: &[&str]) -> anyhow::Result<Duration> {
    let name = program.display();
    let began = Instant::now();
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.kill_on_drop(true).output().await;
    let (output, took) = (
        output.with_context(|| format!("cannot start {name}"))?,
        began.elapsed(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name} failed: {said}");
    Ok(took)
}

const BUILD_IT: &str =
    "build it (cargo build --profile dist --workspace) or name it with --service";

fn own_file() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// The service's program: the one that was named, or the one in our directory.
pub fn find_service(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let program = match named {
        Some(named) => named.to_owned(),
        None => own_file()?.with_file_name("recsys-ingest"),
    };
    let name = program.display();
    anyhow::ensure!(program.is_file(), "there is no {name}: {BUILD_IT}");
    Ok(program)
}

/// psql of the server's version, or of the PATH.
pub async fn find_psql(bin_dir: &Path) -> anyhow::Result<PathBuf> {
    for program in [bin_dir.join("psql"), PathBuf::from("psql")] {
        if run_to_end(&program, &["--version"]).await.is_ok() {
            return Ok(program);
        }
    }
    let dir = bin_dir.display();
    anyhow::bail!("there is no psql in {dir} or in the PATH: install it (postgresql-client)")
}
