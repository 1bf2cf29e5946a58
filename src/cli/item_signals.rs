//! `recsys-ingest signals`: computes the item signals of days.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::config::database::Database;
use crate::jobs::day::TenantDay;
use crate::jobs::signals::compute::compute;
use crate::jobs::signals::{Computed, Limits, Written, days};
use crate::logging;
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;
use crate::tenants::admin::tenants::find_tenant;

use super::period::Period;
use super::progress::ProgressLine;
use super::terminal::print;

const COLUMNS: [&str; 8] = [
    "tenant", "day", "items_shown", "popularity_rows", "popularity_seconds", "covisit_rows",
    "covisit_seconds", "sessions_left_out",
];

/// What to compute.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["day", "from", "to", "changed"])))]
pub struct Signals {
    #[command(flatten)]
    period: Period,
    /// Every day whose exposures have changed since its signals were computed
    #[arg(long, conflicts_with_all = ["day", "from", "to"])]
    changed: bool,
    /// Only this tenant, by external id or UUID [default: all]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Items that are kept of each surface and day
    #[arg(long, default_value_t = Limits::default().items_max, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    items_max: u32,
    /// Neighbors that are kept of each item
    #[arg(long, default_value_t = Limits::default().neighbors_max, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    neighbors_max: u32,
    /// Sessions that must have seen two items for them to be neighbors
    #[arg(long, default_value_t = Limits::default().sessions_min, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    sessions_min: u32,
    /// Items of the largest session that counts for co-visitation: time and space grow with their square
    #[arg(long, default_value_t = Limits::default().session_items_max, value_parser = clap::value_parser!(u32).range(2..), value_name = "N")]
    session_items_max: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Computes the days one after another, each in its own transaction.
pub(crate) async fn run(command: Signals) -> Result<()> {
    let asked = command.period.days()?;
    // No statement timeout: a large day takes as long as it takes.
    let mut session = Session::open(&command.database.target()?, None)
        .await
        .map_err(|error| anyhow::anyhow!("{}", ErrorChain(&error)))?;
    let tenant = match &command.tenant {
        Some(named) => Some(find_tenant(&session.client, named).await?.id),
        None => None,
    };
    let todo = match asked {
        Some(days) => days::with_exposures(&session.client, days, tenant).await?,
        None => days::changed(&session.client, tenant).await?,
    };
    let limits = Limits {
        items_max: command.items_max,
        neighbors_max: command.neighbors_max,
        sessions_min: command.sessions_min,
        session_items_max: command.session_items_max,
    };
    if !command.json {
        print(&match todo.is_empty() {
            true => "nothing to compute".to_owned(),
            false => COLUMNS.join("\t"),
        })?;
    }
    let mut documents = Vec::new();
    let mut failed = 0;
    let progress = ProgressLine::new();
    for (done, day) in todo.iter().enumerate() {
        progress.show(&format!("{done} of {} days done; {}", todo.len(), day.day));
        let computed = compute(&mut session.client, day, &limits).await;
        progress.wipe();
        match computed {
            Ok(computed) if command.json => documents.push(document(day, &computed)),
            Ok(computed) => print(&line(day, &computed))?,
            Err(error) => {
                failed += 1;
                let TenantDay { name, day, .. } = day;
                logging::say(&format!("{day} of {name} is not computed: {error:#}"));
                if session.client.is_closed() {
                    break;
                }
            }
        }
    }
    if command.json {
        print(&Value::Array(documents).to_string())?;
    }
    if failed > 0 {
        bail!("{failed} days are not computed, and their signals are as they were; see above");
    }
    days::delete_old_marks(&session.client).await?;
    Ok(())
}

fn line(day: &TenantDay, computed: &Computed) -> String {
    let Computed {
        shown,
        popularity,
        covisitation,
        sessions_left_out,
    } = computed;
    format!(
        "{}\t{}\t{shown}\t{}\t{:.2}\t{}\t{:.2}\t{sessions_left_out}",
        day.name,
        day.day,
        popularity.rows,
        popularity.took.as_secs_f64(),
        covisitation.rows,
        covisitation.took.as_secs_f64(),
    )
}

fn document(day: &TenantDay, computed: &Computed) -> Value {
    let written = |written: &Written| {
        json!({
            "rows": written.rows,
            "changed": written.changed,
            "seconds": written.took.as_secs_f64(),
        })
    };
    json!({
        "tenant": day.name,
        "tenant_id": day.tenant,
        "day": day.day.to_string(),
        "items_shown": computed.shown,
        "popularity": written(&computed.popularity),
        "covisit": written(&computed.covisitation),
        "sessions_left_out": computed.sessions_left_out,
    })
}
