//! The command line of `compare`.

use std::path::PathBuf;

use clap::Args;

use crate::report::Outputs;
use crate::service::Table;

/// Measure the service against COPY, side by side on this machine.
///
/// Starts a private Postgres (durable, set up as `recsys-ingest dev` does) and the
/// service, and loads the same rows by every method in turn, so that all methods
/// see the same machine. Only ratios within one run mean anything.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Rounds; in each, every method has its turn.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Interactions of a load.
    #[arg(long, default_value_t = 300_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..))]
    pub rows: u32,
    /// Exposures of a load; a fifth of the interactions if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..))]
    pub exposures: Option<u32>,
    /// Two rounds of a fifth of the rows: to see that it works, not to quote.
    #[arg(long)]
    pub quick: bool,
    /// Measure growth instead: partitions, tenants, connections, events per body, rows in the table.
    #[arg(long)]
    pub growth: bool,
    /// Rows that are in the table beforehand, for --growth.
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    pub large_table: u64,
    /// Measure against an earlier build of the service instead: its program.
    #[arg(long, value_name = "FILE", conflicts_with = "growth")]
    pub baseline: Option<PathBuf>,
    /// The service has Kafka as its log: brokers, HOST:PORT. For --service recsys-ingest-kafka with --baseline recsys-ingest.
    #[arg(long, value_name = "BROKERS", requires = "baseline")]
    pub kafka_brokers: Option<String>,
    /// Seconds of a load at half the held rate.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    pub half_rate_seconds: f64,
    /// Connections that post, for every body size; if not given, 128 for single events down to 16 for bodies of 1,000.
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: Option<u16>,
    /// The same seed makes the same events.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Where Postgres and the spool are kept during the run: on the disk that counts, not in memory.
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    pub dir: PathBuf,
    /// PostgreSQL's programs to use, instead of those that are found.
    #[arg(long, env = "INGEST_PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// The service's program; the recsys-ingest in this one's directory if not given.
    #[arg(long, value_name = "FILE")]
    pub service: Option<PathBuf>,
    /// One more argument for the service; may be given several times.
    #[arg(long = "service-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub service_args: Vec<String>,
    /// Threads that post.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
    /// Fail if a figure misses its target.
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub outputs: Outputs,
}

impl CompareOptions {
    /// With what is not given filled in, and `--quick` carried out.
    pub fn resolved(mut self) -> Self {
        let exposures = self.exposures.unwrap_or(self.rows / 5);
        let (mut share, mut seconds) = (1, self.half_rate_seconds.clamp(0.1, 600.0));
        if self.quick {
            (share, seconds) = (5, seconds / 2.0);
            self.rounds = self.rounds.min(2);
        }
        self.half_rate_seconds = seconds;
        self.rows = (self.rows / share).max(1000);
        self.exposures = Some((exposures / share).max(1000));
        self
    }

    /// Events of a load into a table.
    pub fn events(&self, table: Table) -> u32 {
        match table {
            Table::Interactions => self.rows,
            Table::Exposures => self.exposures.unwrap_or(self.rows),
            Table::Assignments => 0,
        }
    }

    /// Connections that post bodies of this many events.
    ///
    /// Enough for every sync of the spool to have company: with fewer, waiting
    /// for the disk is what is measured.
    pub fn connections(&self, body: u32) -> usize {
        match (self.connections, body) {
            (Some(connections), _) => connections.into(),
            (None, ..10) => 128,
            (None, ..100) => 64,
            (None, ..1000) => 32,
            (None, _) => 16,
        }
    }
}
