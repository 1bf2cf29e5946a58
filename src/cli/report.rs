//! `recsys-ingest report`: what the stored events say of the data.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::database::Database;
use crate::config::parse;
use crate::jobs::day::Days;
use crate::jobs::join_quality::{self, JoinQuality, Question};
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;
use crate::tenants::admin::tenants::find_tenant;

use super::period::{Period, today};
use super::terminal::Output;

const COLUMNS: [&str; 12] = [
    "day", "tenant", "surface", "interactions", "joined", "share", "without_token",
    "token_unknown", "item_not_listed", "position_differs", "late", "exposure_after",
];

/// What to report.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// How many interactions find their exposure, by day, tenant and surface [default: yesterday]
    Join(Join),
}

/// The interactions to look at.
#[derive(Args, Debug)]
pub struct Join {
    #[command(flatten)]
    period: Period,
    /// Only this tenant, by external id or UUID [default: all]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Exit with 1 if a line's share is below this, from 0 to 1
    #[arg(long, value_parser = share, value_name = "SHARE")]
    threshold: Option<f64>,
    /// Lines with fewer interactions are printed, but not held to the threshold
    #[arg(long, default_value_t = 1, value_name = "N")]
    interactions_min: u64,
    /// How long before an interaction its exposure may have been
    #[arg(long, default_value = "7d", value_parser = parse::duration, value_name = "TIME")]
    lookback: Duration,
    /// An interaction is late if it is received this long after it occurred
    #[arg(long, default_value = "1h", value_parser = parse::duration, value_name = "TIME")]
    late_after: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

pub(crate) async fn run(command: ReportCommand) -> Result<()> {
    match command {
        ReportCommand::Join(join) => self::join(&join).await,
    }
}

async fn join(join: &Join) -> Result<()> {
    let days = join.period.days()?.unwrap_or_else(|| {
        let yesterday = today().yesterday().unwrap_or_else(|_| today());
        Days {
            from: yesterday,
            to: yesterday,
        }
    });
    // No statement timeout: many days take as long as they take.
    let mut session = Session::open(&join.database.target()?, None)
        .await
        .map_err(|error| anyhow::anyhow!("{}", ErrorChain(&error)))?;
    let tenant = match &join.tenant {
        Some(named) => Some(find_tenant(&session.client, named).await?.id),
        None => None,
    };
    let question = Question {
        days,
        tenant,
        lookback: join.lookback,
        late_after: join.late_after,
    };
    let lines = join_quality::read(&mut session.client, &question).await?;
    table(join.json, &lines).print()?;
    let Some(threshold) = join.threshold else {
        return Ok(());
    };
    let below: Vec<String> = lines
        .iter()
        .filter(|line| line.interactions >= join.interactions_min && line.share() < threshold)
        .map(|line| {
            let (surface, share) = (&line.surface, line.share());
            format!(
                "{surface:?} of {} on {}: {share:.4}",
                tenant_of(line),
                line.day
            )
        })
        .collect();
    if !below.is_empty() {
        bail!(
            "too few interactions find their exposure; below {threshold}: {}",
            below.join("; ")
        );
    }
    Ok(())
}

fn tenant_of(line: &JoinQuality) -> String {
    let id = || line.tenant_id.to_string();
    line.tenant.clone().unwrap_or_else(id)
}

fn table(json: bool, lines: &[JoinQuality]) -> Output {
    let mut output = Output::table(json, &COLUMNS);
    for line in lines {
        let (tenant, share) = (tenant_of(line), line.share());
        output.row(
            &[
                &line.day,
                &tenant,
                &line.surface,
                &line.interactions,
                &line.joined,
                &format_args!("{share:.4}"),
                &line.without_token,
                &line.token_unknown,
                &line.item_not_listed,
                &line.position_differs,
                &line.late,
                &line.exposure_after,
            ],
            json!({
                "day": line.day.to_string(),
                "tenant": tenant,
                "tenant_id": line.tenant_id,
                "surface": line.surface,
                "interactions": line.interactions,
                "joined": line.joined,
                "share": share,
                "without_token": line.without_token,
                "token_unknown": line.token_unknown,
                "item_not_listed": line.item_not_listed,
                "position_differs": line.position_differs,
                "late": line.late,
                "exposure_after": line.exposure_after,
            }),
        );
    }
    output
}

/// Parses a share.
fn share(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1, as 0.9".to_owned()),
    }
}
