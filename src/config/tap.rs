//! Settings of `tap`.

use std::path::PathBuf;

use clap::{ArgMatches, Args};

use super::parse;
use super::secret::{Secret, named, resolved};

/// Settings of `tap`.
#[derive(Args, Clone, Debug)]
pub struct Tap {
    /// The service, at the address of its --ops-listen if it has one
    #[arg(
        long,
        env = "INGEST_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub key: OperatorKey,

    /// CA certificates in PEM form that are trusted for https, instead of those of the system
    #[arg(long, value_name = "FILE", value_parser = parse::path())]
    pub tls_ca: Option<PathBuf>,

    /// Print each verdict as a line of JSON
    #[arg(long)]
    pub json: bool,
}

/// The key that looks; `None` for a service that needs none.
#[derive(Clone, Debug)]
pub struct OperatorKey(pub Option<Secret>);

#[derive(Args)]
struct OperatorKeyArguments {
    /// API key with the role viewer, operator or admin; dev needs none on its own machine
    #[arg(
        long,
        env = "INGEST_ADMIN_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    key: Option<Secret>,

    /// A file that holds it
    #[arg(long, env = "INGEST_ADMIN_KEY_FILE", value_name = "FILE", value_parser = parse::path())]
    key_file: Option<PathBuf>,
}

resolved!(OperatorKey, OperatorKeyArguments);

impl OperatorKeyArguments {
    fn resolve(self, matches: &ArgMatches) -> Result<OperatorKey, clap::Error> {
        named(matches, "key", "INGEST_ADMIN_KEY", self.key, self.key_file).map(OperatorKey)
    }
}
