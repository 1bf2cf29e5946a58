//! `recsys-ingest adopt`: event tables that the suite's own migrations made or changed.

use std::io::BufRead as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::config::database::Database;
use crate::event::table::Table;
use crate::logging;
use crate::partitions::lean::Surplus;
use crate::postgres::migrate::{self, History};
use crate::postgres::session::Session;

use super::terminal::{open, print};

/// Whether to remove what there is.
#[derive(Args, Debug)]
pub struct Adopt {
    /// Remove what is shown, after asking
    #[arg(long)]
    lean: bool,

    /// Remove it without asking
    #[arg(long, requires = "lean")]
    yes: bool,

    #[command(flatten)]
    database: Database,
}

/// Shows what would be removed, asks, and removes it.
pub(crate) async fn run(adopt: Adopt) -> Result<()> {
    let mut session = open(&adopt.database).await?;
    refuse_old_schema(&session).await?;
    let mut surplus = Vec::new();
    for table in Table::ALL {
        surplus.push(Surplus::read(&mut session.client, table).await?);
    }
    for kept in surplus.iter().filter_map(Surplus::kept_default) {
        logging::say(&format!(
            "{kept} holds rows and stays: a running service moves them into partitions; run this again then"
        ));
    }
    let sql: Vec<String> = surplus.iter().flat_map(Surplus::sql).collect();
    if sql.is_empty() {
        return print("nothing to remove");
    }
    print(&sql.join("\n"))?;
    if !adopt.lean {
        logging::say("`recsys-ingest adopt --lean` runs this");
        return Ok(());
    }
    if !adopt.yes && !is_confirmed().await? {
        bail!("nothing was removed: answer y, or give --yes");
    }
    for surplus in surplus.iter().filter(|surplus| !surplus.is_none()) {
        let removed = surplus.remove(&session.client).await?;
        let mut lines = vec![format!("{} indexes dropped", removed.indexes)];
        if removed.default {
            lines.push("an empty DEFAULT partition dropped".to_owned());
        }
        print(&format!("{}: {}", surplus.table(), lines.join(", ")))?;
    }
    Ok(())
}

/// The tables have to be adopted before anything is removed from them.
async fn refuse_old_schema(session: &Session) -> Result<()> {
    match migrate::look(&session.client).await? {
        History::Behind(_) => {
            bail!("the schema is not up to date: run `recsys-ingest migrate` first")
        }
        History::Current | History::Foreign | History::Unreadable => Ok(()),
    }
}

/// Reads a line of the answer; none is a no.
async fn is_confirmed() -> Result<bool> {
    logging::say("Run this? [y/N]");
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .map(|_| answer)
    });
    let answer = reading.await.context("the answer was interrupted")?;
    let answer = answer.context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
