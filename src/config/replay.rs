//! Settings of `spool replay`.

use std::path::PathBuf;

use clap::Args;

use super::database::Database;
use super::parse::{self, count, one_of};
use super::store::INTERVALS;
use crate::partitions::indexes::IndexProfile;
use crate::partitions::range::Interval;

/// Settings of `spool replay`.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// Directory of the spool, with all that was in it
    #[arg(value_name = "DIR", value_parser = parse::path())]
    pub spool_dir: PathBuf,

    /// Go on if a process is connected to PostgreSQL for this spool; it is fenced off
    #[arg(long)]
    pub take_over: bool,

    /// Time that one partition holds: day, week or month [default: as the latest partition of the table, or day without one]
    #[arg(long, env = "INGEST_PARTITION_INTERVAL", value_parser = one_of::<Interval>(&INTERVALS))]
    pub partition_interval: Option<Interval>,

    /// Most partitions that events may bring about in an hour, all tables together
    #[arg(long, env = "INGEST_PARTITIONS_PER_HOUR", default_value_t = 200, value_parser = count::<usize>(0, 100_000))]
    pub partitions_per_hour: usize,

    /// When partitions get their indexes beside the key: deferred (when they are sealed) or full (from the start)
    #[arg(long, env = "INGEST_INDEX_PROFILE", default_value = "deferred", value_parser = one_of::<IndexProfile>(&["deferred", "full"]))]
    pub index_profile: IndexProfile,

    /// Print the counts as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
}
