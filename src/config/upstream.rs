//! Settings of those who post: to which service, with which key, how.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{ArgMatches, Args, ValueEnum};

use super::parse::{self, KIB, at_least};
use super::secret::{Secret, in_a_file, resolved};

/// What an answer waits for. There is no `received`: a crash of the service would lose lines that
/// count as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShipAck {
    /// The events are on the service's disk
    Durable,
    /// The events are in Postgres; tells new ones from duplicates
    Committed,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// zstd, or none to a service on this machine
    Auto,
    /// zstd
    Zstd,
    /// gzip
    Gzip,
    /// none
    None,
}

/// Settings of those who post.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The service")]
pub struct Upstream {
    /// The service; by default the one on this machine
    #[arg(
        long,
        env = "INGEST_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub api_key: ApiKey,

    /// Tenant of the events that name none, for a key with the role service
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,

    /// CA certificates in PEM form that are trusted for https, instead of those of the system
    #[arg(long, value_name = "FILE", value_parser = parse::path())]
    pub tls_ca: Option<PathBuf>,

    /// What an answer waits for
    #[arg(long, default_value = "durable", value_enum, ignore_case = true)]
    pub ack: ShipAck,

    /// Compression of what is sent
    #[arg(long, default_value = "auto", value_enum, ignore_case = true)]
    pub compression: Compression,

    /// Longest line; longer ones go to the rejects
    #[arg(long, default_value = "1MiB", value_parser = at_least(KIB), value_name = "SIZE")]
    pub line_bytes_max: ByteSize,
}

/// The key that posts.
#[derive(Clone, Debug)]
pub struct ApiKey(pub Secret);

#[derive(Args)]
#[command(next_help_heading = "The service")]
struct ApiKeyArguments {
    /// API key with the role ingest, or service for lines of several tenants
    #[arg(
        long,
        env = "INGEST_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    api_key: Option<Secret>,

    /// A file that holds it
    #[arg(long, env = "INGEST_API_KEY_FILE", value_name = "FILE", value_parser = parse::path())]
    api_key_file: Option<PathBuf>,
}

resolved!(ApiKey, ApiKeyArguments);

impl ApiKeyArguments {
    fn resolve(self, matches: &ArgMatches) -> Result<ApiKey, clap::Error> {
        let hint = "an API key is required: give INGEST_API_KEY or --api-key, or a file that holds it in INGEST_API_KEY_FILE; recsys-ingest keys create makes one";
        in_a_file(
            matches,
            ("api_key", "INGEST_API_KEY"),
            self.api_key,
            self.api_key_file,
            hint,
        )
        .map(|key| ApiKey(key.expose().trim().into()))
    }
}
