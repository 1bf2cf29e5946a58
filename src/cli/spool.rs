//! `recsys-ingest spool`: operations on a spool directory.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::terminal::print;
use crate::config::parse;
use crate::log::spool;

/// What to do with a spool directory.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
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

pub(crate) fn run(command: &SpoolCommand) -> Result<()> {
    match command {
        SpoolCommand::Fork { spool_dir } => {
            let lineage = spool::recover::open::fork(spool_dir)?;
            print(&format!(
                "{} is a spool by itself from now on, with lineage {lineage}",
                spool_dir.display()
            ))
        }
    }
}
