//! The command line of `run`.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use crate::check::Patience;
use crate::generate::{Caller, Scope, Settings, parse_positive};
use crate::report::{Outputs, Thresholds, events_of};
use crate::run::{Job, Schedule, Stop};
use crate::service::Ack;

/// More than a closed loop posts in a minute on any machine that was seen.
const EVENTS_WITHOUT_END: u32 = 20_000_000;

/// Post events, measure, and check every one of them against the tables.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Where the service listens.
    #[arg(
        long,
        env = "INGEST_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: String,
    /// An API key; give one for each tenant to post for several.
    #[arg(
        long = "api-key",
        env = "INGEST_API_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "KEY"
    )]
    pub api_keys: Vec<String>,
    /// A key that may write for any tenant; with --tenants it posts everything, and every event names one of them.
    #[arg(
        long,
        env = "INGEST_SERVICE_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub service_key: Option<String>,
    #[command(flatten)]
    pub settings: Settings,
    /// Connections that post at once.
    #[arg(long, default_value_t = 8, value_name = "C", value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// What to wait for with each body.
    #[arg(long, value_enum, default_value = "durable")]
    pub ack: Ack,
    /// Events a second, due at fixed times (open loop); without it, the next body leaves when the last is answered.
    #[arg(long, value_name = "R", value_parser = parse_positive)]
    pub rate: Option<f64>,
    /// Post for this long instead of --events: as many as --rate makes due, or else as are answered.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Post the whole sequence this many times: from the second on there should be nothing but duplicates.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Compare with the tables in this database before and after the run.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// The service's salt for user and session ids, to compare their hashes too.
    #[arg(
        long,
        env = "EXPOSURE_HASH_SALT",
        hide_env_values = true,
        value_name = "SALT"
    )]
    pub salt: Option<String>,
    /// How long to wait for the next of the acknowledged events to appear in the tables; the wait goes on while the service says that some are in its spool.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS", value_parser = parse_positive)]
    pub settle: f64,
    /// Remove the rows of the run again, once they are checked, and book them in ingest_removed_rows, so that `recsys-ingest verify` still balances.
    #[arg(long, requires = "database_url")]
    pub cleanup: bool,
    #[command(flatten)]
    pub outputs: Outputs,
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Post again what is refused with 429 or 503 (after Retry-After) or lost with its connection.
    #[arg(long)]
    pub retry: bool,
    /// Stop a pass after this, and the wait for rows after as long again.
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS", value_parser = parse_positive)]
    pub time_limit: f64,
    /// Memory for bodies that are made ahead; what fits costs the measurement nothing.
    #[arg(long, default_value_t = 1_024, value_name = "MIB")]
    pub prepare_mb: usize,
    /// Threads that post.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
}

impl RunOptions {
    /// What the options ask for, at `now`.
    pub fn job(&self, now: Timestamp, drawn_seed: u64, stop: &Stop) -> anyhow::Result<Job> {
        let hour = TimestampRound::new().smallest(Unit::Hour);
        let last_hour = now.round(hour.mode(RoundMode::Floor));
        let last_hour = last_hour.context("the clock shows a time that no calendar has")?;
        let settings = Settings {
            seed: Some(self.settings.seed.unwrap_or(drawn_seed)),
            until: self.settings.until.or(Some(last_hour)),
            callers: self.callers()?,
            events: match (self.duration, self.rate) {
                (Some(time), Some(rate)) => events_of(rate * time.as_secs_f64(), 1),
                (Some(_), None) => self.settings.events.max(EVENTS_WITHOUT_END),
                (None, _) => self.settings.events,
            },
            ..self.settings.clone()
        };
        let schedule = Schedule {
            connections: self.connections.into(),
            rate: self.rate,
            retry: self.retry,
            duration: self.duration,
            stop: Stop::clone(stop),
            time_limit: self.patience().at_most,
            ack: self.ack,
            prepare_bytes: self.prepare_mb << 20,
        };
        Job::new(settings, &self.url, schedule)
    }

    /// The service key where there are tenants for it to name, else the API keys.
    ///
    /// Both may stand in the environment, so that one cannot exclude the other.
    fn callers(&self) -> anyhow::Result<Vec<Caller>> {
        let (tenants, keys) = (self.settings.tenants.len(), &self.api_keys);
        let caller = |key: Option<&String>, scope| Caller {
            key: key.cloned(),
            scope,
        };
        if self.service_key.is_some() && (tenants > 0 || keys.is_empty()) {
            let scope = if tenants > 0 { Scope::Any } else { Scope::Own };
            return Ok(vec![caller(self.service_key.as_ref(), scope)]);
        }
        anyhow::ensure!(
            tenants == 0 || tenants == keys.len(),
            "there are {tenants} tenants and {} API keys: give one tenant for each key, or --service-key",
            keys.len()
        );
        if keys.is_empty() {
            return Ok(vec![Caller::default()]);
        }
        let scope = |at| {
            if tenants > 0 {
                Scope::Tenant(at)
            } else {
                Scope::Own
            }
        };
        let callers = (0..)
            .zip(keys)
            .map(|(at, key)| caller(Some(key), scope(at)));
        Ok(callers.collect())
    }

    /// How long to wait for rows.
    pub fn patience(&self) -> Patience {
        // No run takes longer than a day, and a clock plus a day does not overflow.
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds.min(86_400.0));
        Patience {
            settle: seconds(self.settle),
            at_most: seconds(self.time_limit),
        }
    }
}
