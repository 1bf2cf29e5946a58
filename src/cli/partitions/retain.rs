//! `recsys-ingest partitions retain`: what is older than it is kept.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::list::{HEAD, row};
use crate::accounts::retention::policy::Policy;
use crate::accounts::retention::preview::{Due, preview};
use crate::accounts::retention::run::{Report, holder, retain};
use crate::cli::advice::advice;
use crate::cli::terminal::{Output, counted, open_as};
use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::config::parse;
use crate::config::retention::Retention;
use crate::logging;
use crate::postgres::checks::clock::server_time;
use crate::postgres::error::ErrorChain;
use crate::service::retention::policy;

/// Longest wait for another process that removes partitions.
const WAIT_MAX: Duration = Duration::from_secs(30 * 60);

/// How often to check whether it has finished.
const WAIT_STEP: Duration = Duration::from_millis(500);

/// What to remove.
#[derive(Args, Debug)]
pub struct Retain {
    #[command(flatten)]
    retention: Retention,
    /// Oldest event that the service accepts, which is kept in any case
    #[arg(long, env = "INGEST_HORIZON_PAST", default_value = "90d", value_parser = parse::duration)]
    horizon_past: Duration,
    /// Only show which partitions and rows would go
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(settings: Retain) -> Result<()> {
    settings.retention.check(settings.horizon_past)?;
    let policy = policy(&settings.retention);
    if !policy.removes() {
        bail!(
            "nothing is to be removed: say how long rows are kept, with --retain-exposures, --retain-interactions, --retain-assignments, --retain-quarantine or --retain-accounts, or their variables"
        );
    }
    let mut session = open_as(&settings.database, &settings.actor).await?;
    // A large partition takes a while to count; waits for locks have limits.
    session
        .client
        .batch_execute("SET statement_timeout = 0")
        .await?;
    let now = server_time(&session.client).await?;
    if settings.dry_run {
        let mut output = Output::table(settings.json, &HEAD);
        for due in preview(&mut session.client, &policy, now).await? {
            match due {
                Due::Partition(table, info) => row(&mut output, table, &info),
                Due::Rows {
                    table,
                    default,
                    before,
                    count,
                } => {
                    let document = json!({
                        "table": table, "partition": default, "from": null,
                        "to": before.to_string(), "rows": count, "bytes": null,
                        "is_default": default.is_some(), "state": null,
                    });
                    let name = default.as_deref().unwrap_or("-");
                    output.row(
                        &[&table, &name, &"-", &before, &count, &"-", &"-"],
                        document,
                    );
                }
            }
        }
        return output.print();
    }
    let started = Instant::now();
    let report = loop {
        let report = retain(&mut session.client, &policy, now).await?;
        if !report.is_busy {
            break report;
        }
        if started.elapsed() >= WAIT_MAX {
            let holder = holder(&session.client).await?;
            bail!(
                "gave up after {} minutes waiting for {}, which removes partitions: let it finish, or end it, and try again",
                WAIT_MAX.as_secs() / 60,
                holder.map_or("another session".to_owned(), |holder| holder.to_string())
            );
        }
        tokio::time::sleep(WAIT_STEP).await;
    };
    output(&report, &policy, settings.json).print()?;
    end(&report)
}

fn output(report: &Report, policy: &Policy, json: bool) -> Output {
    let action = if policy.keeps_detached {
        "detached"
    } else {
        "dropped"
    };
    let Report {
        default_rows,
        quarantined,
        spools,
        log_entries,
        ..
    } = report;
    if json {
        let removed: Vec<Value> = report
            .removed
            .iter()
            .map(|one| {
                json!({
                    "table": one.table.as_str(), "partition": one.name,
                    "range": one.range.to_string(), "rows": one.rows, "action": action,
                })
            })
            .collect();
        return Output::Json(json!({
            "partitions": removed, "default_rows": default_rows, "quarantined": quarantined,
            "spools": spools, "log_entries": log_entries,
        }));
    }
    let mut lines: Vec<String> = report
        .removed
        .iter()
        .map(|one| format!("{}\t{}\t{action}\t{} rows", one.table, one.name, one.rows))
        .collect();
    for (count, what) in [
        (*default_rows, "rows of DEFAULT partitions deleted"),
        (*quarantined, "rows removed from quarantine"),
        (
            i64::try_from(*spools).unwrap_or(i64::MAX),
            "dead spools added up",
        ),
        (
            i64::try_from(*log_entries).unwrap_or(i64::MAX),
            "entries of the partition log removed",
        ),
    ] {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    }
    if lines.is_empty() {
        lines.push("nothing is older than it is kept".to_owned());
    }
    Output::Text(lines)
}

/// Fails if something is still there.
fn end(report: &Report) -> Result<()> {
    for (name, error) in &report.failed {
        let error: &(dyn std::error::Error + 'static) = error;
        let causes = std::iter::successors(Some(error), |error| error.source());
        let advice = advice(causes).map(|advice| format!("; {advice}"));
        let advice = advice.unwrap_or_default();
        logging::say(&format!(
            "{name} is not removed: {}{advice}",
            ErrorChain(error)
        ));
    }
    if let Some(table) = report.not_owned.first() {
        bail!(
            "{table} belongs to another role, which alone may remove its partitions: run this as that role"
        );
    }
    if !report.failed.is_empty() {
        bail!(
            "{} not removed; see above, and look in pg_stat_activity for old transactions if a lock was waited for",
            counted(report.failed.len() as u64, "partition")
        );
    }
    Ok(())
}
