//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::{Timestamp, Unit};

use crate::answer::Ack;
use crate::check::Patience;
use crate::generate::settings::{Caller, Encoding, Format, Framing, Order, Scope, Settings};

/// Post events, measure, and check every one of them against the tables.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// Where the service listens.
    #[arg(
        long,
        env = "INGEST_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub(crate) url: String,
    /// An API key; give one for each tenant to post for several.
    #[arg(
        long = "api-key",
        env = "INGEST_API_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "KEY"
    )]
    pub(crate) api_keys: Vec<String>,
    /// A key that may write for any tenant; with --tenants it posts everything, and every event names one of them.
    #[arg(
        long,
        env = "INGEST_SERVICE_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub(crate) service_key: Option<String>,
    /// External ids of the tenants: of each API key in turn, or those that the service key names.
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    pub(crate) tenants: Vec<String>,
    /// Events to post, repeated and invalid ones among them (a list of pipelines_v1 counts as one).
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) events: u32,
    /// Connections that post at once.
    #[arg(long, default_value_t = 8, value_name = "C", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// Events of a body: one number, or a range to draw from.
    #[arg(long, default_value = "100", value_name = "MIN..MAX", value_parser = parse_range)]
    pub(crate) body_events: RangeInclusive<u32>,
    /// Exposures to interactions.
    #[arg(long, default_value = "1:3", value_name = "E:I", value_parser = parse_mix)]
    pub(crate) mix: (u32, u32),
    /// Formats, each used equally often where it fits.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "native",
        value_name = "FORMATS"
    )]
    pub(crate) formats: Vec<Format>,
    /// Compression of the bodies.
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) encoding: Encoding,
    /// How a body holds its events.
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) framing: Framing,
    /// What to wait for with each body.
    #[arg(long, value_enum, default_value = "durable")]
    pub(crate) ack: Ack,
    /// Spread occurred_at over the last so many days.
    #[arg(long, default_value_t = 1.0, value_name = "DAYS", value_parser = parse_positive)]
    pub(crate) days: f64,
    /// The end of those days; the last full hour if not given, so that a seed repeats for that long.
    #[arg(long, value_name = "RFC3339")]
    pub(crate) until: Option<Timestamp>,
    /// Whether occurred_at advances with the events or is drawn afresh for each.
    #[arg(long, value_enum, default_value = "time")]
    pub(crate) order: Order,
    /// Share of events that are sent again.
    #[arg(long, default_value_t = 0.0, value_name = "0..1", value_parser = parse_share)]
    pub(crate) duplicates: f64,
    /// Share of events that the service must reject.
    #[arg(long, default_value_t = 0.0, value_name = "0..1", value_parser = parse_share)]
    pub(crate) invalid: f64,
    /// Events a second, due at fixed times (open loop); without it, the next body leaves when the last is answered.
    #[arg(long, value_name = "R", value_parser = parse_positive)]
    pub(crate) rate: Option<f64>,
    /// How many items there are to choose from.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) items: u32,
    /// How many users there are.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) users: u32,
    /// The same seed (and --until) posts the same bytes again; drawn if not given.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Post the whole sequence so many times: from the second on there should be nothing but duplicates.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) repeat: u16,
    /// Compare with the tables in this database before and after the run.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The service's salt for user and session ids, to compare their hashes too.
    #[arg(
        long,
        env = "EXPOSURE_HASH_SALT",
        hide_env_values = true,
        value_name = "SALT"
    )]
    pub(crate) salt: Option<String>,
    /// How long to wait for the next of the acknowledged events to appear in the tables; the wait goes on while the service says that some are in its spool.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS", value_parser = parse_positive)]
    pub(crate) settle: f64,
    /// Write the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Post again what is refused with 429 or 503 (after Retry-After) or lost with its connection.
    #[arg(long)]
    pub(crate) retry: bool,
    /// Stop a pass after this, and the wait for rows after as long again.
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS", value_parser = parse_positive)]
    pub(crate) time_limit: f64,
    /// Memory for bodies that are made ahead; what fits costs the measurement nothing.
    #[arg(long, default_value_t = 1_024, value_name = "MIB")]
    pub(crate) prepare_mb: usize,
    /// Threads that post.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: u16,
}

impl RunOptions {
    /// What decides the bytes.
    pub(crate) fn settings(&self, now: Timestamp, drawn_seed: u64) -> anyhow::Result<Settings> {
        let until = match self.until {
            Some(until) => until,
            None => now
                .round(
                    jiff::TimestampRound::new()
                        .smallest(Unit::Hour)
                        .mode(jiff::RoundMode::Floor),
                )
                .context("the clock shows a time that no calendar has")?,
        };
        Ok(Settings {
            seed: self.seed.unwrap_or(drawn_seed),
            events: self.events,
            body_events: self.body_events.clone(),
            mix: self.mix,
            formats: self.formats.clone(),
            tenants: self.tenants.clone(),
            callers: self.callers()?,
            until_us: until.as_microsecond(),
            span_us: span_us(self.days),
            order: self.order,
            duplicates: self.duplicates,
            invalid: self.invalid,
            items: self.items.max(1),
            users: self.users.max(1),
            framing: self.framing,
            encoding: self.encoding,
        })
    }

    /// The service key where there are tenants for it to name, else the API keys.
    ///
    /// Both may stand in the environment, so that one cannot exclude the other.
    fn callers(&self) -> anyhow::Result<Vec<Caller>> {
        if let Some(key) = &self.service_key
            && (!self.tenants.is_empty() || self.api_keys.is_empty())
        {
            return Ok(vec![Caller {
                key: Some(key.clone()),
                scope: match self.tenants.is_empty() {
                    true => Scope::Own,
                    false => Scope::Any,
                },
            }]);
        }
        anyhow::ensure!(
            self.tenants.is_empty() || self.tenants.len() == self.api_keys.len(),
            "there are {} tenants and {} API keys: give one tenant for each key, or --service-key",
            self.tenants.len(),
            self.api_keys.len()
        );
        if self.api_keys.is_empty() {
            return Ok(vec![Caller {
                key: None,
                scope: Scope::Own,
            }]);
        }
        let caller = |(at, key): (usize, &String)| {
            anyhow::Ok(Caller {
                key: Some(key.clone()),
                scope: match self.tenants.is_empty() {
                    true => Scope::Own,
                    false => Scope::Tenant(u16::try_from(at)?),
                },
            })
        };
        self.api_keys.iter().enumerate().map(caller).collect()
    }

    /// How long to wait for rows.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            settle: Duration::from_secs_f64(self.settle.min(86_400.0)),
            at_most: self.time_limit(),
        }
    }

    /// When to stop.
    pub(crate) fn time_limit(&self) -> Duration {
        Duration::from_secs_f64(self.time_limit.min(86_400.0))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond i64 becomes the largest, and is cut to a century first"
)]
fn span_us(days: f64) -> i64 {
    (days.min(36_500.0) * 86_400e6) as i64
}

fn parse_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .map_err(|error| error.to_string())
    };
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (number(from)?, number(to.trim_start_matches('='))?),
        None => (number(text)?, number(text)?),
    };
    match (1..=to).contains(&from) {
        true => Ok(from..=to),
        false => Err("must be one number or MIN..MAX, from 1 on".to_owned()),
    }
}

fn parse_mix(text: &str) -> Result<(u32, u32), String> {
    let (exposures, interactions) = text.split_once(':').ok_or("must look like 1:3")?;
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .map_err(|error| error.to_string())
    };
    match (number(exposures)?, number(interactions)?) {
        (0, 0) => Err("must not be 0:0".to_owned()),
        mix => Ok(mix),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "must be a number")?;
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err("must be between 0 and 1".to_owned()),
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number")?;
    match number.is_finite() && number > 0.0 {
        true => Ok(number),
        false => Err("must be above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_size_is_one_number_or_a_range_from_one_on() {
        assert_eq!(parse_range("100"), Ok(100..=100));
        assert_eq!(parse_range("1..1000"), Ok(1..=1000));
        for wrong in ["0", "0..5", "5..1", "x", "1..", ""] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mix_is_two_weights_that_are_not_both_zero() {
        assert_eq!(parse_mix("1:3"), Ok((1, 3)));
        assert_eq!(parse_mix("1:0"), Ok((1, 0)));
        for wrong in ["0:0", "1", "a:b", "1:-1"] {
            assert!(parse_mix(wrong).is_err(), "{wrong}");
        }
    }
}
