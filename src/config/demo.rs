//! Settings of `demo`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::parse::{self, count};
use super::secret::Secret;

/// Settings of `demo`.
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// The service [default: that of dev.env in --data-dir]
    #[arg(long, env = "INGEST_URL", value_name = "URL")]
    pub url: Option<String>,

    /// API key with the role ingest [default: that of dev.env in --data-dir]
    #[arg(
        long,
        visible_alias = "key",
        env = "INGEST_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub api_key: Option<Secret>,

    /// The service's Postgres, where the numbers are read; without it they are not [default: that of dev.env in --data-dir, with its service]
    // Under another id than where it is required.
    #[arg(
        id = "database_of_numbers",
        long = "database-url",
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<Secret>,

    /// The data directory of a running dev, for what is not given
    #[arg(long, default_value = ".recsys-ingest", value_name = "DIR", value_parser = parse::path())]
    pub data_dir: PathBuf,

    /// Tenant to play for, for a key with the role service [default: the key's own]
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,

    /// CA certificates in PEM form that are trusted for https, instead of those of the system
    #[arg(long, value_name = "FILE", value_parser = parse::path())]
    pub tls_ca: Option<PathBuf>,

    /// Which shop: the same number plays the same events
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u32,

    /// Lists that are served; there are about four events to each
    #[arg(long, default_value_t = 40, value_parser = count::<u32>(1, 200), value_name = "N")]
    pub lists: u32,

    /// When the first list is served; the same time plays the same events [default: the beginning of this hour]
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,

    /// A checkout of the suite, whose recsys-eval then reports on the events; needs Go
    #[arg(long, env = "RECSYS_SUITE_DIR", value_name = "DIR", value_parser = parse::path())]
    pub suite_dir: Option<PathBuf>,

    /// Where the report of recsys-eval goes
    #[arg(long, default_value = "recsys-eval-report.json", value_name = "FILE", value_parser = parse::path())]
    pub report: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
