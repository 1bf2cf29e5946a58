//! Settings of `import` and `ship`.

use std::path::PathBuf;

use clap::Args;

use super::address::ListenAddress;
use super::parse;
use super::upstream::Upstream;

/// Settings of `import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// Files of one JSON event a line, plain or compressed with gzip or zstd; or folders, of which all *.jsonl and *.ndjson are read
    #[arg(required = true, value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub upstream: Upstream,

    /// Where it is noted how far each file is, so that the same command goes on after an interruption
    #[arg(long, default_value = ".recsys-ingest-import", value_name = "DIR", value_parser = parse::path())]
    pub state_dir: PathBuf,

    /// File for lines that cannot be stored, with the reason of each [default: rejected.jsonl in --state-dir]
    #[arg(long, value_name = "FILE", value_parser = parse::path())]
    pub rejects: Option<PathBuf>,

    /// Time of the events that have none, in RFC 3339; without it, their lines are rejected. With another time they are other events, so name the same one if the files are imported from their beginning again
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub occurred_at: Option<jiff::Timestamp>,

    /// Take events of any age. The service then runs inside this process, with the settings of serve from the environment (DATABASE_URL, API_KEY_HASH_SECRET, EXPOSURE_HASH_SALT) and a spool in --state-dir; --url has no effect
    #[arg(long)]
    pub beyond_horizon: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

fn instant(text: &str) -> Result<jiff::Timestamp, String> {
    let at = text.trim().parse();
    at.map_err(|_| "it has to be a time like 2026-05-24T10:00:00Z".to_owned())
}

/// Settings of `ship`.
#[derive(Args, Clone, Debug)]
pub struct Ship {
    /// Folders whose *.jsonl and *.ndjson are followed, with those below them; several as several flags, or with commas between
    #[arg(
        long = "dir",
        env = "INGEST_SHIP_DIR",
        required = true,
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub folders: Vec<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub upstream: Upstream,

    /// Where it is noted how far each file is, on a disk that keeps what it was told to; on the file system of --dir, so that unread files can be linked there and outlive their removal [default: .recsys-ingest-ship in the first --dir]
    #[arg(long, env = "INGEST_SHIP_STATE_DIR", value_name = "DIR", value_parser = parse::path())]
    pub state_dir: Option<PathBuf>,

    /// File for lines that cannot be stored, with the reason of each [default: rejected.jsonl in --state-dir]
    #[arg(long, env = "INGEST_SHIP_REJECTS", value_name = "FILE", value_parser = parse::path())]
    pub rejects: Option<PathBuf>,

    /// Address of health and metrics: /healthz, /readyz, /metrics
    #[arg(
        long,
        env = "INGEST_SHIP_OPS_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "ADDR"
    )]
    pub ops_listen: ListenAddress,
}
