//! `recsys-ingest verify`: checks that every accepted row is accounted for.

mod looked;
mod told;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::accounts::verify::{self, TableCheck};
use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::config::parse;
use crate::postgres::session::Session;

use super::progress::ProgressLine;
use super::terminal::{open_as, print};
use looked::{Looked, Stream, look};
use told::Told;

/// Most attempts at a consistent reading. A running service may delete a segment after the ledger
/// was read and before the spool is: rows stored in between are then missing from both. A real
/// difference is still there at the next attempt.
const LOOKS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What to check.
#[derive(Args, Debug)]
pub struct Verify {
    /// Directory of the spool to check
    #[arg(
        long,
        env = "INGEST_SPOOL_DIR",
        default_value = "spool",
        value_parser = parse::path(),
        value_name = "DIR"
    )]
    pub spool_dir: std::path::PathBuf,
    /// Only compare spool and ledger; counting the rows of large tables takes a while
    #[arg(long)]
    pub skip_tables: bool,
    /// Only compare ledger and tables: where the log is in Kafka, or the spool on another machine
    #[arg(long, conflicts_with = "skip_tables")]
    pub skip_spool: bool,
    /// Book what differs as lost or removed, for this reason, so that the accounts hold from now on
    #[arg(long, value_name = "REASON", value_parser = parse::reason)]
    pub accept: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub actor: Actor,
    #[command(flatten)]
    pub database: Database,
}

/// Exit code of a command that could not read what it is to compare.
pub(crate) const COULD_NOT_LOOK: u8 = 2;

/// The accounts could not be read, so that nothing is known of them.
#[derive(Debug, thiserror::Error)]
#[error("could not look")]
pub(crate) struct CouldNotLook;

/// Compares the accepted rows with what became of them.
///
/// # Errors
///
/// [`CouldNotLook`] if they could not be read, any other error if they differ.
pub(crate) async fn run(verify: Verify) -> Result<()> {
    let mut session = open_as(&verify.database, &verify.actor)
        .await
        .context(CouldNotLook)?;
    let (looked, tables) = read(&verify, &mut session).await.context(CouldNotLook)?;
    let mut told = Told {
        looked: &looked,
        tables: &tables,
        booked: None,
    };
    let lines = told.lines();
    if !verify.json && !lines.is_empty() {
        print(&lines.join("\n"))?;
    }
    let judged = judge(&verify, &mut session, &mut told).await;
    if verify.json {
        print(&told.document().to_string())?;
    }
    judged
}

/// Books what differs if that is asked for. Fails unless the accounts hold then.
async fn judge<'v>(verify: &'v Verify, session: &mut Session, told: &mut Told<'v>) -> Result<()> {
    let (differences, unreadable) = (told.differences(), told.unreadable());
    anyhow::ensure!(
        told.fenced_off() == 0,
        "this spool directory is fenced off: a later start on a copy of it holds its accounts. \
         What is in it is stored by a start on it, which fences the other one off, or, if both \
         are to be used, by a start after `recsys-ingest spool fork`"
    );
    let Some(reason) = &verify.accept else {
        anyhow::ensure!(
            differences == 0,
            "{differences} of the accounts differ; see above. Where a difference is known and \
             meant, --accept REASON books it"
        );
        return Ok(());
    };
    let said = match differences - unreadable {
        0 => "nothing was booked: none of the accounts differs".to_owned(),
        booked => {
            let lost = told.looked.lost();
            verify::accept(&mut session.client, told.tables, &lost, reason)
                .await
                .context("nothing was booked")?;
            told.booked = Some((booked, reason));
            format!("{booked} differences are booked: {reason}")
        }
    };
    if !verify.json {
        print(&said)?;
    }
    anyhow::ensure!(
        unreadable == 0,
        "{unreadable} files of the spool cannot be read, see above; move them away once nothing of them is to be saved"
    );
    Ok(())
}

/// Reads spool, ledger and tables.
async fn read(verify: &Verify, session: &mut Session) -> Result<(Looked, Vec<TableCheck>)> {
    let mut looks = 0;
    let looked = loop {
        if verify.skip_spool {
            break Looked::default();
        }
        looks += 1;
        let looked = look(&verify.spool_dir, session).await;
        let balanced = looked
            .as_ref()
            .is_ok_and(|looked| looked.streams.iter().all(Stream::balances));
        if balanced || looks == LOOKS_MAX {
            break looked?;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let progress = ProgressLine::new();
    progress.show("counting the rows of the tables");
    let tables = match verify.skip_tables {
        true => Vec::new(),
        false => verify::count_tables(&mut session.client).await?,
    };
    Ok((looked, tables))
}
