//! Settings of `doctor`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::database::Database;
use super::parse::{self, KIB, at_least, count, size};

/// What counts as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Least {
    /// Everything, what is only worth knowing too
    Note,
    /// What limits the service
    Degraded,
    /// What keeps events from being stored
    Fault,
}

/// Settings of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// Mend what can be mended without blocking a reader or a writer, or taking anything away: make missing partitions, vacuum; the rest is only shown
    #[arg(long)]
    pub fix: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// Findings less severe than this are shown and do not count for the exit code
    #[arg(
        long,
        value_enum,
        default_value = "note",
        ignore_case = true,
        value_name = "SEVERITY"
    )]
    pub least: Least,

    /// Directory of the spool to look at as well
    #[arg(long, env = "INGEST_SPOOL_DIR", value_parser = parse::path(), value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,

    /// Disk space that the spool may take
    #[arg(long, env = "INGEST_SPOOL_BYTES_MAX", default_value = "8GiB", value_parser = at_least(KIB))]
    pub spool_bytes_max: ByteSize,

    /// Disk space that is left to others
    #[arg(long, env = "INGEST_SPOOL_DISK_RESERVE", default_value = "1GiB", value_parser = size)]
    pub spool_disk_reserve: ByteSize,

    /// Writers of the service, from which the connections that it needs follow
    #[arg(long, env = "INGEST_WRITERS", default_value_t = 2, value_parser = count::<u8>(1, 8))]
    pub writers: u8,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
}
