//! `recsys-ingest partitions`: a list of them, and by hand what the service does by itself: to make
//! them ahead of time, to seal them, and to remove what is old.

mod ensure;
mod list;
mod retain;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use tokio::time::Instant;

use crate::config::database::Database;
use crate::config::store::Sealing;
use crate::event::table::Table;
use crate::logging;
use crate::metrics::Metrics;
use crate::partitions;
use crate::partitions::indexes::IndexProfile;
use crate::partitions::seal;
use crate::partitions::seal::plan::Selection;
use crate::postgres::checks::clock::server_time;
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;

use super::progress::ProgressLine;
use super::terminal::{counted, print};
use ensure::Ensure;
use retain::Retain;

/// Longest wait for another sealer to finish its step: a large index takes a while.
const WAIT_MAX: Duration = Duration::from_secs(30 * 60);

/// How often to check whether the other sealer has finished.
const WAIT_STEP: Duration = Duration::from_millis(500);

/// What to do with partitions.
#[derive(Debug, Subcommand)]
pub enum PartitionsCommand {
    /// List the partitions of the event tables: hot (only the key), partly, or sealed (all indexes)
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: Database,
    },
    /// Make the partitions of the coming days, as the service does where its role may create them (pg_partman: premake); for the owner's cron where it may not
    Ensure(Ensure),
    /// Seal partitions now: build their indexes and gather statistics, while events go on coming in
    Seal {
        /// Names of partitions, sealed at once [default: all that are due]
        names: Vec<String>,
        #[command(flatten)]
        sealing: Sealing,
        #[command(flatten)]
        database: Database,
    },
    /// Remove what is older than the --retain settings say, as the service does every ten minutes (pg_partman: retention), and book it
    Retain(Box<Retain>),
}

/// Runs a `partitions` command.
pub(crate) async fn run(command: PartitionsCommand) -> Result<()> {
    match command {
        PartitionsCommand::List { json, database } => list::run(&database, json).await,
        PartitionsCommand::Ensure(settings) => ensure::run(settings).await,
        PartitionsCommand::Retain(settings) => retain::run(*settings).await,
        PartitionsCommand::Seal {
            names,
            sealing,
            database,
        } => {
            // No statement timeout: a build takes as long as it takes. Its waits for locks have a
            // limit.
            let mut session = Session::open(&database.target()?, None)
                .await
                .map_err(|error| anyhow::anyhow!("{}", ErrorChain(&error)))?;
            let selection = if names.is_empty() {
                Selection::Due {
                    profile: IndexProfile::Deferred,
                    after: sealing.seal_after,
                    now: server_time(&session.client).await?,
                }
            } else {
                refuse_unknown(&mut session, &names).await?;
                Selection::Named(names)
            };
            seal_all(&mut session, &selection).await
        }
    }
}

/// A mistyped name is an error, not a partition that was sealed.
async fn refuse_unknown(session: &mut Session, names: &[String]) -> Result<()> {
    let mut known = Vec::new();
    for table in Table::ALL {
        known.extend(partitions::catalog::list(&mut session.client, table).await?);
    }
    for name in names {
        let info = known
            .iter()
            .find(|info| info.name == *name)
            .with_context(|| {
                format!("there is no partition {name}: see `recsys-ingest partitions list`")
            })?;
        if info.index_state.is_none() {
            bail!("{name} is never sealed: it is a default partition, or partitioned itself");
        }
    }
    Ok(())
}

async fn seal_all(session: &mut Session, selection: &Selection) -> Result<()> {
    let metrics = Metrics::new();
    let mut waiting_since = Instant::now();
    let mut sealed = 0;
    let progress = ProgressLine::new();
    loop {
        progress.show(&format!("sealing; {sealed} partitions are done"));
        let outcome = seal::work::seal(session, selection, None, &metrics).await?;
        progress.wipe();
        for partition in &outcome.sealed {
            sealed += 1;
            waiting_since = Instant::now();
            print(&format!(
                "{}\t{}\tsealed\t{} indexes built\t{:.1} s",
                partition.table,
                partition.name,
                partition.built,
                partition.took.as_secs_f32()
            ))?;
        }
        for failed in &outcome.failed {
            logging::say(&format!(
                "{} is not sealed: {}",
                failed.name,
                ErrorChain(&failed.error)
            ));
        }
        if !outcome.failed.is_empty() {
            bail!(
                "{} not sealed; see above, and look in pg_stat_activity for old transactions if a lock was waited for",
                counted(outcome.failed.len() as u64, "partition")
            );
        }
        if !outcome.is_busy {
            break;
        }
        if waiting_since.elapsed() >= WAIT_MAX {
            let holder = seal::lock::holder(&session.client).await?;
            bail!(
                "gave up after {} minutes waiting for {}, which is sealing: let it finish, or end it, and try again",
                WAIT_MAX.as_secs() / 60,
                holder.map_or("another session".to_owned(), |holder| holder.to_string())
            );
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
    match sealed {
        0 => print("nothing to seal"),
        _ => Ok(()),
    }
}
