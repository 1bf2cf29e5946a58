//! Settings of `tap`.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches};

use super::parse;
use super::secret::{Secret, named};

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

impl Args for OperatorKey {
    fn augment_args(command: clap::Command) -> clap::Command {
        OperatorKeyArguments::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        OperatorKeyArguments::augment_args_for_update(command)
    }
}

impl FromArgMatches for OperatorKey {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = OperatorKeyArguments::from_arg_matches(matches)?;
        named(
            matches, "key", "INGEST_ADMIN_KEY", given.key, given.key_file,
        )
        .map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
