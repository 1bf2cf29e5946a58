//! The two programs that answer requests: the service, and next to nothing.
//!
//! Keeps one invariant: neither outlives us, however we end in an orderly way.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

/// Migrations on a machine that is busy.
const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A program that listens; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Answerer {
    child: Child,
    /// `host:port`
    authority: String,
}

impl Answerer {
    /// Starts `recsys-ingest serve` and waits until it takes events.
    pub(crate) async fn service(
        program: &Path,
        arguments: &[String],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .arg("serve")
            .args(arguments)
            .args(["--log-format", "json", "--log-level", "info"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: build it (cargo build --release) or name it with --service",
                    program.display()
                )
            })?;
        let mut this = Self {
            child,
            authority: String::new(),
        };
        let until = Instant::now() + START_LIMIT;
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            let find = |message: &str| {
                text.lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                    .find(|line| line["message"] == message)
            };
            if let (Some(listening), Some(_)) = (find("listening"), find("ready"))
                && let Some(address) = listening["address"].as_str()
            {
                this.authority = address.to_owned();
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

    /// Starts this program's [empty handler](super::empty) and waits until it listens.
    pub(crate) fn empty_handler() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .arg(super::empty::COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the empty handler")?;
        let stdout = child.stdout.take().context("the empty handler is mute")?;
        let mut this = Self {
            child,
            authority: String::new(),
        };
        BufReader::new(stdout)
            .read_line(&mut this.authority)
            .context("cannot read the empty handler's address")?;
        this.authority.truncate(this.authority.trim_end().len());
        anyhow::ensure!(
            !this.authority.is_empty(),
            "the empty handler did not start"
        );
        Ok(this)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port`
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        // Nothing that it holds is worth an orderly end, and it may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Has a build of the service bring a database up to its schema.
pub(crate) async fn migrate(program: &Path, url: &str) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(program)
        .args(["migrate", "--database-url", url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(START_LIMIT, output)
        .await
        .context("the migration takes too long")?
        .with_context(|| format!("cannot start {}", program.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} cannot migrate: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The service's program: the one that was named, or the one beside ours.
pub(crate) fn find_service(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let program = match named {
        Some(named) => named.to_owned(),
        None => std::env::current_exe()
            .context("cannot find this program's own file")?
            .with_file_name("recsys-ingest"),
    };
    anyhow::ensure!(
        program.is_file(),
        "there is no {}: build it (cargo build --release) or name it with --service",
        program.display()
    );
    Ok(program)
}

/// psql of the server's version, or of the PATH.
pub(crate) fn find_psql(bin_dir: &Path) -> anyhow::Result<PathBuf> {
    for program in [bin_dir.join("psql"), PathBuf::from("psql")] {
        let version = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if version.is_ok_and(|status| status.success()) {
            return Ok(program);
        }
    }
    anyhow::bail!(
        "there is no psql in {} or in the PATH: install it (postgresql-client)",
        bin_dir.display()
    )
}
