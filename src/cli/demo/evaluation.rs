//! recsys-eval's report on a played shop, where there is a checkout of the suite.
//!
//! Its program is built and run as its documentation says: `recsys-eval run` with two files that
//! name the views and the experiment. Nothing of it is part of this program.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::jobs::played::Scope;

/// Building it for the first time fetches its modules.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Bytes of what it said that are passed on when it fails.
const SAID_BYTES_MAX: usize = 2_000;

/// Has recsys-eval report on a shop; returns its report.
///
/// # Errors
/// When there is no recsys-eval in the checkout, when there is no Go, or when either fails.
pub(super) async fn report(
    suite: &Path,
    database_url: &str,
    scope: &Scope,
    report: &Path,
) -> Result<Value> {
    let eval = suite.join("recsys-eval");
    if !eval.join("go.mod").is_file() {
        bail!(
            "{} has no recsys-eval: --suite-dir (RECSYS_SUITE_DIR) names a checkout of the suite",
            suite.display()
        );
    }
    let report = std::path::absolute(report)
        .with_context(|| format!("cannot tell where {} is", report.display()))?;
    // Its configuration is YAML, of which JSON is a part.
    let source = |view: &str| json!({"type": "postgres", "dsn": database_url, "query": scope.documents(view)});
    let dataset = Private::write(
        &report,
        "dataset",
        &json!({
            "exposures": source("recsys_exposures"),
            "outcomes": source("recsys_outcomes"),
            "assignments": source("experiment_assignments"),
        }),
    )?;
    let config = Private::write(
        &report,
        "config",
        &json!({
            "mode": "experiment",
            "experiment": {
                "experiment_id": "demo-ranking", "control_variant": "A", "slice_keys": ["surface"],
                "guardrails": {"max_latency_p95_ms": 1000, "max_error_rate": 1, "max_empty_rate": 1},
            },
        }),
    )?;
    let mut run = Command::new("go");
    run.args(["run", "./cmd/recsys-eval", "run", "--mode", "experiment"])
        .arg("--dataset")
        .arg(&dataset.0)
        .arg("--config")
        .arg(&config.0)
        .arg("--output")
        .arg(&report)
        .current_dir(&eval)
        .kill_on_drop(true);
    let ended = tokio::time::timeout(TIME_MAX, run.output())
        .await
        .context("recsys-eval took too long")?;
    let output =
        ended.context("cannot run go, which recsys-eval is built with: is it on the PATH?")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let from = said.floor_char_boundary(said.len().saturating_sub(SAID_BYTES_MAX));
        bail!(
            "recsys-eval failed ({}): {}",
            output.status,
            said[from..].trim()
        );
    }
    let text = fs::read_to_string(&report)
        .with_context(|| format!("recsys-eval wrote no report to {}", report.display()))?;
    serde_json::from_str(&text).context("the report of recsys-eval is no JSON")
}

/// A file that is its owner's alone, as it names a password, and that is removed afterwards.
struct Private(PathBuf);

impl Private {
    fn write(beside: &Path, what: &str, content: &Value) -> Result<Self> {
        let mut name = beside.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{what}.{}.yaml", std::process::id()));
        let path = beside.with_file_name(name);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.to_string().as_bytes()));
        let private = Self(path);
        written.with_context(|| format!("cannot write {}", private.0.display()))?;
        Ok(private)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // It holds nothing that is needed, and the next one has another name.
        drop(fs::remove_file(&self.0));
    }
}
