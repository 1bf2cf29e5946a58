//! Settings of the spool.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::parse::{self, KIB, at_least, size};

/// Settings of the spool: where events are kept from their answer to their COMMIT.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Spool")]
pub struct Spool {
    /// Directory of the spool, on a disk that keeps what it was told to; one for each instance
    #[arg(
        long,
        env = "INGEST_SPOOL_DIR",
        default_value = "spool",
        value_parser = parse::path(),
        value_name = "DIR"
    )]
    pub spool_dir: PathBuf,

    /// Disk space that the spool may take; past it the answer is 503
    #[arg(long, env = "INGEST_SPOOL_BYTES_MAX", default_value = "8GiB", value_parser = at_least(KIB))]
    pub spool_bytes_max: ByteSize,

    /// Disk space that is left to others on the same file system
    #[arg(long, env = "INGEST_SPOOL_DISK_RESERVE", default_value = "1GiB", value_parser = size)]
    pub spool_disk_reserve: ByteSize,
}
