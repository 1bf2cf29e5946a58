//! Settings of `spool replay`.

use std::path::PathBuf;

use clap::Args;

use super::database::Database;
use super::parse;
use super::store::Partitioning;

/// Settings of `spool replay`.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// Directory of the spool, with all that was in it
    #[arg(value_name = "DIR", value_parser = parse::path())]
    pub spool_dir: PathBuf,

    /// Go on if a process is connected to PostgreSQL for this spool; it is fenced off
    #[arg(long)]
    pub take_over: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub partitioning: Partitioning,

    /// Print the counts as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
}
