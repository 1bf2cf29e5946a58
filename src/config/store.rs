//! Settings of the Postgres side.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgAction, Args};

use super::parse::{KIB, at_least, boolean, count, duration, one_of, up_to_a_day};
use crate::partitions::indexes::IndexProfile;
use crate::partitions::range::Interval;

/// The intervals of partitions, for help and completions.
pub(crate) const INTERVALS: [&str; 3] = ["day", "week", "month"];

/// Settings of the Postgres side.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Storing")]
pub struct Store {
    /// Writers of exposures, and as many of interactions, with a connection each; assignments have one
    #[arg(long, env = "INGEST_WRITERS", default_value_t = 2, value_parser = count::<u8>(1, 8))]
    pub writers: u8,

    /// Rows after which a batch is written
    #[arg(long, env = "INGEST_BATCH_ROWS_MAX", default_value_t = 20_000, value_parser = count::<usize>(1, 10_000_000))]
    pub batch_rows_max: usize,

    /// Bytes after which a batch is written
    #[arg(long, env = "INGEST_BATCH_BYTES_MAX", default_value = "4MiB", value_parser = at_least(KIB))]
    pub batch_bytes_max: ByteSize,

    /// Time after which a batch is written, however small
    #[arg(long, env = "INGEST_FLUSH_AFTER", default_value = "50ms", value_parser = up_to_a_day)]
    pub flush_after: Duration,

    /// The same for a batch with rows whose COMMIT a request waits for
    #[arg(long, env = "INGEST_FLUSH_WAITED_AFTER", default_value = "5ms", value_parser = up_to_a_day)]
    pub flush_waited_after: Duration,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub partitioning: Partitioning,

    /// Partitions to have ready beyond the current one
    #[arg(long, env = "INGEST_PARTITIONS_AHEAD", default_value_t = 3, value_parser = count::<u32>(0, 1000))]
    pub partitions_ahead: u32,

    /// Seal partitions whose time is over: build their indexes, one at a time, and gather statistics
    #[arg(long, env = "INGEST_SEAL", default_value = "true", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub seal: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub sealing: Sealing,
}

/// How partitions are made that events need.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Storing")]
pub struct Partitioning {
    /// Time that one partition holds: day, week or month [default: as the latest partition of the table, or day without one]
    #[arg(long, env = "INGEST_PARTITION_INTERVAL", value_parser = one_of::<Interval>(&INTERVALS))]
    pub partition_interval: Option<Interval>,

    /// Most partitions that events may bring about in an hour, all tables together
    #[arg(long, env = "INGEST_PARTITIONS_PER_HOUR", default_value_t = 200, value_parser = count::<usize>(0, 100_000))]
    pub partitions_per_hour: usize,

    /// When partitions get their indexes beside the key: deferred (when they are sealed: a hot partition takes rows several times faster) or full (from the start)
    #[arg(long, env = "INGEST_INDEX_PROFILE", default_value = "deferred", value_parser = one_of::<IndexProfile>(&["deferred", "full"]))]
    pub index_profile: IndexProfile,
}

/// When partitions are sealed.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Storing")]
pub struct Sealing {
    /// Grace after the end of a partition's time, and after it was made, until it is sealed; events that come later than that pay for its indexes
    #[arg(long, env = "INGEST_SEAL_AFTER", default_value = "1h", value_parser = duration)]
    pub seal_after: Duration,
}
