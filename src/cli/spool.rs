//! `recsys-ingest spool`: operations on a spool directory.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::progress::ProgressLine;
use super::terminal::{Output, print};
use crate::config::parse;
use crate::config::replay::Replay;
use crate::log::spool;
use crate::logging;
use crate::service::replay;

/// What to do with a spool directory.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// Store what the spool of a machine that is gone holds, and end; needs the directory, PostgreSQL and no secret
    ///
    /// Each event once: what PostgreSQL has already is skipped. Refuses a directory that is in use, or that
    /// a later start on a copy of it has fenced off. Exits with 0 once nothing is left. A service that
    /// comes back on the original is fenced off, or, started again, takes the accounts back.
    Replay(Box<Replay>),
    /// Make a directory that began as a copy of another a spool by itself, so that both can be used; stop the service on it first
    ///
    /// Its events are stored by the next start, those that are stored already as duplicates, under
    /// accounts that begin with what is in it.
    Fork {
        /// Directory of the spool
        #[arg(
            long,
            env = "INGEST_SPOOL_DIR",
            default_value = "spool",
            value_parser = parse::path(),
            value_name = "DIR"
        )]
        spool_dir: PathBuf,
    },
}

pub(crate) async fn run(command: SpoolCommand) -> Result<()> {
    match command {
        SpoolCommand::Replay(settings) => replay(&settings).await,
        SpoolCommand::Fork { spool_dir } => {
            let lineage = spool::recover::open::fork(&spool_dir)?;
            print(&format!(
                "{} is a spool by itself from now on, with lineage {lineage}",
                spool_dir.display()
            ))
        }
    }
}

async fn replay(settings: &Replay) -> Result<()> {
    let progress = ProgressLine::new();
    let show = |left: u64| progress.show(&format!("{left} rows left"));
    let replayed = replay::run(settings, &show).await?;
    progress.wipe();
    let head = ["table", "stored", "duplicates", "quarantined"];
    let mut output = Output::table(settings.json, &head);
    for of_table in replayed {
        let replay::Replayed {
            table,
            stored,
            duplicates,
            quarantined,
        } = of_table;
        let document = json!({
            "table": table.as_str(), "stored": stored, "duplicates": duplicates,
            "quarantined": quarantined,
        });
        output.row(&[&table, &stored, &duplicates, &quarantined], document);
    }
    output.print()?;
    logging::say(&format!(
        "nothing is left in {}; the directory can be removed",
        settings.spool_dir.display()
    ));
    Ok(())
}
