//! All settings; the only place that reads the environment.
//!
//! Each setting is a flag with an environment variable, and its doc comment is its help. The
//! table in `docs/settings.md` is generated from here, and a test compares the two. Numbers that need no setting
//! are constants where they are used.
#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "doc comments of settings are their help, and name addresses as they are written"
)]

pub mod actor;
pub mod address;
pub mod database;
pub mod demo;
pub mod dev;
pub mod doctor;
pub mod environment;
pub mod http;
pub mod import;
pub mod intake;
pub mod limits;
pub mod log;
pub(crate) mod parse;
pub mod replay;
pub mod retention;
pub mod secret;
pub mod spool;
pub mod store;
pub mod tap;
pub mod transport;
pub mod upstream;
pub mod user;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args, FromArgMatches as _};

use database::Database;
use http::Http;
use intake::Intake;
use limits::RateLimits;
use parse::{boolean, up_to_a_day};
use retention::Retention;
use secret::{Salt, Secrets};
use spool::Spool;
use store::Store;
use transport::Transport;

/// Settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub secrets: Secrets,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub http: Http,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub transport: Transport,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub intake: Intake,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub rate_limits: RateLimits,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub spool: Spool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub store: Store,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub retention: Retention,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub salt: Salt,

    /// Run the migrations at start; instances that start together wait for one another
    #[arg(help_heading = "Start and stop", long, env = "MIGRATE_ON_START", default_value = "true", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub migrate_on_start: bool,

    /// Time to store what was accepted, once told to stop; what is left after it is reported
    #[arg(help_heading = "Start and stop", long, env = "INGEST_SHUTDOWN_GRACE", default_value = "30s", value_parser = up_to_a_day)]
    pub shutdown_grace: Duration,
}

impl Serve {
    /// Parses flags as the command line does: what they leave out comes from the environment, or is
    /// the default.
    ///
    /// # Errors
    /// Names the flag that is missing or cannot be parsed.
    pub fn parse_from<'a>(flags: impl IntoIterator<Item = &'a str>) -> clap::error::Result<Self> {
        let command = Self::augment_args(clap::Command::new("serve").no_binary_name(true));
        Self::from_arg_matches(&environment::read(
            &command,
            flags.into_iter().map(OsString::from),
        )?)
    }

    /// Refuses settings that cannot work, alone or together.
    ///
    /// # Errors
    /// Names the settings, what they are, and what would be accepted.
    pub fn check(&self) -> anyhow::Result<()> {
        const MOST: u64 = 4 << 30;
        let Intake {
            body_bytes_max,
            queue_bytes_max,
            ..
        } = self.intake;
        if queue_bytes_max.as_u64() >= MOST {
            bail!(
                "--queue-bytes-max (INGEST_QUEUE_BYTES_MAX) {queue_bytes_max} is too large: it has to be less than 4 GiB"
            );
        }
        if queue_bytes_max < body_bytes_max {
            bail!(
                "--queue-bytes-max (INGEST_QUEUE_BYTES_MAX) {queue_bytes_max} is smaller than \
                 --body-bytes-max (INGEST_BODY_BYTES_MAX) {body_bytes_max}, \
                 so that a body within its limit would never be taken: raise the one or lower the other"
            );
        }
        if self.salt.exposure_hash_salt.expose().trim().is_empty() {
            bail!(
                "EXPOSURE_HASH_SALT is empty: raw ids would be hashed without a key, which anyone can undo"
            );
        }
        self.retention.check(self.intake.horizon_past)?;
        self.transport.check()
    }
}
