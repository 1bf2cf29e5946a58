//! Settings of `dev`.

use std::path::PathBuf;

use clap::Args;

use super::address::ListenAddress;
use super::parse;

/// Settings of `dev`.
#[derive(Args, Clone, Debug)]
pub struct Dev {
    /// Addresses to listen on, as `serve` takes them
    #[arg(
        long,
        env = "INGEST_LISTEN",
        default_value = "127.0.0.1:8080",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub listen: Vec<ListenAddress>,

    /// Where the private Postgres and the keys are kept
    #[arg(long, env = "INGEST_DATA_DIR", default_value = ".recsys-ingest", value_name = "DIR", value_parser = parse::path())]
    pub data_dir: PathBuf,

    /// PostgreSQL's programs to use, instead of those that are found
    #[arg(long, env = "INGEST_PG_BIN", value_name = "DIR", value_parser = parse::path())]
    pub pg_bin: Option<PathBuf>,

    /// Where to keep PostgreSQL's programs if they have to be fetched
    #[arg(long, env = "INGEST_PG_CACHE", value_name = "DIR", value_parser = parse::path())]
    pub pg_cache: Option<PathBuf>,

    /// Further hosts that requests may name while dev listens on a loopback address; beside these, localhost, 127.0.0.1, [::1] and the address of --listen
    #[arg(
        long,
        env = "INGEST_ALLOW_HOST",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,

    /// The home directory
    #[arg(long, env = "HOME", hide = true)]
    pub home: Option<PathBuf>,

    /// The user's cache directory
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    pub xdg_cache_home: Option<PathBuf>,
}
