//! `recsys-ingest migrate`: brings the schema up to date, or says what that would do.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::config::database::Database;
use crate::logging;
use crate::postgres::migrate::{self, History};
use crate::service::prepare::migrate_once;

use super::terminal::{Output, open, print};

/// Whether to migrate, or only to look.
#[derive(Args, Debug)]
pub struct Migrate {
    /// Show which migrations ran and which are missing, and change nothing; exits with 1 if some are missing
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,

    /// Print the status as JSON
    #[arg(long, requires = "status")]
    json: bool,

    /// Show the SQL that would run, and change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    database: Database,
}

/// Migrates or looks; returns the exit code.
pub(crate) async fn run(migrate: Migrate) -> Result<u8> {
    if migrate.status || migrate.dry_run {
        let session = open(&migrate.database).await?;
        let history = migrate::look(&session.client).await?;
        return match migrate.status {
            true => status(&history, migrate.json),
            false => dry_run(&history),
        };
    }
    let report = migrate_once(&migrate.database.target()?).await?;
    match report.applied.len() {
        0 => print(&nothing_to_do())?,
        count => print(&format!(
            "{count} migrations ran: {}",
            report.applied.join(", ")
        ))?,
    }
    Ok(0)
}

fn nothing_to_do() -> String {
    let newest = migrate::names().pop().unwrap_or_default();
    format!("nothing to do: the schema is up to date ({newest})")
}

/// Says which migrations ran; returns the exit code.
fn status(history: &History, json: bool) -> Result<u8> {
    let missing = match history {
        History::Current => &[][..],
        History::Behind(missing) => missing,
        History::Foreign => bail!(
            "the schema was migrated by another version or build of this program: run the version that migrated it"
        ),
        History::Unreadable => bail!(
            "the role may not read ingest_schema_history: GRANT SELECT ON ingest_schema_history to it"
        ),
    };
    let of = |name: String| match missing.contains(&name) {
        true => (name, "missing"),
        false => (name, "applied"),
    };
    let states = migrate::names().into_iter().map(of);
    let output = match json {
        true => Output::Json(
            states
                .map(|(name, state)| json!({"migration": name, "state": state}))
                .collect(),
        ),
        false => {
            let mut lines: Vec<String> = states
                .map(|(name, state)| format!("{name}\t{state}"))
                .collect();
            lines.push(match missing.len() {
                0 => nothing_to_do(),
                count => format!("{count} missing: run `recsys-ingest migrate`"),
            });
            Output::Text(lines)
        }
    };
    output.print()?;
    Ok(u8::from(!missing.is_empty()))
}

fn dry_run(history: &History) -> Result<u8> {
    let History::Behind(missing) = history else {
        // What cannot be told is an error there.
        return status(history, false);
    };
    for name in missing {
        let sql = migrate::sql(name).unwrap_or_default();
        print(&format!("-- {name}\nBEGIN;\n{}\nCOMMIT;\n", sql.trim_end()))?;
    }
    logging::say(&format!(
        "`recsys-ingest migrate` runs these {} migrations, each in a transaction with its row in \
         ingest_schema_history. Event tables that are there already get their unique index first, \
         built without a lock that readers or writers would wait for. Nothing was changed.",
        missing.len()
    ));
    Ok(0)
}
