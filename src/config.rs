//! All settings; the only place that reads the environment.
//!
//! Each setting is a flag with an environment variable, and its doc comment is its help. The
//! README's table is generated from here, and a test compares the two. Numbers that need no setting
//! are constants where they are used.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use bytesize::ByteSize;
use clap::{Args, FromArgMatches as _, ValueEnum};

use crate::http::connection::proxies::TrustedProxies;
use crate::http::ingest::ack::Ack;
use crate::partitions::indexes::IndexProfile;
use crate::partitions::range::Interval;
use crate::postgres::connect::Target;

/// Where Postgres is.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// Postgres, as a URL or key=value pairs with libpq's parameters (sslmode and sslrootcert too)
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Secret,
}

impl Database {
    /// Parses the connection settings.
    pub fn target(&self) -> anyhow::Result<Target> {
        Target::parse(self.database_url.expose())
    }
}

/// Secrets that are shared with the rest of the suite.
#[derive(Args, Clone, Debug)]
pub struct Secrets {
    /// Key of the HMAC under which API keys are stored; the same in every component of the suite
    #[arg(
        long,
        env = "API_KEY_HASH_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub api_key_hash_secret: Secret,
}

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
    pub spool: Spool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub store: Store,

    /// Key of the HMAC that replaces raw user, anonymous and session ids; the same in every component of the suite
    #[arg(
        long,
        env = "EXPOSURE_HASH_SALT",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub exposure_hash_salt: Secret,

    /// Run the migrations at start; instances that start together wait for one another
    #[arg(long, env = "MIGRATE_ON_START", default_value_t = true, action = clap::ArgAction::Set)]
    pub migrate_on_start: bool,

    /// Time to store what was accepted, once told to stop; what is left after it is reported
    #[arg(long, env = "INGEST_SHUTDOWN_GRACE", default_value = "30s", value_parser = up_to_a_day)]
    pub shutdown_grace: Duration,
}

/// Settings of the HTTP side.
#[derive(Args, Clone, Debug)]
pub struct Http {
    /// Address to listen on
    #[arg(
        long,
        env = "INGEST_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,

    /// Most connections open at once, and half of it for one address; past that a new one takes the place of the one that waits longest for a request, or is answered 503 where none waits
    #[arg(long, env = "INGEST_CONNECTIONS_MAX", default_value_t = 8192, value_parser = count(1, 1_000_000))]
    pub connections_max: usize,

    /// Proxies whose addresses may have more than half of the connections, as addresses or networks with commas between: 10.0.0.0/8,fd00::5
    #[arg(
        long,
        env = "INGEST_TRUSTED_PROXIES",
        default_value = "",
        value_name = "NETWORKS"
    )]
    pub trusted_proxies: TrustedProxies,

    /// Time for a request's head to arrive
    #[arg(long, env = "INGEST_HEAD_TIMEOUT", default_value = "15s", value_parser = time(ROUND_TRIP, DAY))]
    pub head_timeout: Duration,

    /// Longest pause in a request's body, and time for all of it: a second more for every 16 KiB that came
    #[arg(long, env = "INGEST_BODY_TIMEOUT", default_value = "15s", value_parser = time(ROUND_TRIP, DAY))]
    pub body_timeout: Duration,

    /// Longest wait of an open connection for its next request; longer than that of the load balancer in front
    #[arg(long, env = "INGEST_IDLE_TIMEOUT", default_value = "75s", value_parser = time(ROUND_TRIP, DAY))]
    pub idle_timeout: Duration,

    /// Time for an answer to be read: a second more for every 16 KiB of it
    #[arg(long, env = "INGEST_WRITE_TIMEOUT", default_value = "30s", value_parser = time(ROUND_TRIP, DAY))]
    pub write_timeout: Duration,

    /// How often tenants and API keys are read again; a revoked key works for at most this long
    #[arg(long, env = "INGEST_KEY_REFRESH", default_value = "5s", value_parser = time(SECOND, DAY))]
    pub key_refresh: Duration,

    /// How long the copy of tenants and API keys in the spool's directory is trusted by a start that cannot read the database; keys revoked meanwhile work until then; 0s: keep no copy
    #[arg(long, env = "INGEST_KEY_COPY_MAX_AGE", default_value = "24h", value_parser = humantime::parse_duration)]
    pub key_copy_max_age: Duration,
}

/// Settings of TLS, and of what is served where.
#[derive(Args, Clone, Debug)]
pub struct Transport {
    /// Certificate chain in PEM form, the server's own certificate first: --listen speaks HTTPS (TLS 1.2 and 1.3, HTTP/2 and HTTP/1); the files are read every five seconds, and a new certificate is used without a restart
    #[arg(long, env = "INGEST_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate in PEM form (PKCS#8, PKCS#1 or SEC1, without a passphrase)
    #[arg(long, env = "INGEST_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Address of a second listener, for operators, without TLS: readiness, metrics, /docs and /openapi.json are served there, and --listen serves the events and /healthz alone
    #[arg(long, env = "INGEST_OPS_LISTEN", value_name = "ADDR")]
    pub ops_listen: Option<SocketAddr>,

    /// The hosts that requests may name; `None`: any. Set by `dev`.
    #[arg(skip)]
    pub hosts: Option<Vec<String>>,
}

/// Settings of what is accepted.
#[derive(Args, Clone, Debug)]
pub struct Intake {
    /// What an answer waits for where the request does not say with ?ack=
    #[arg(long, env = "INGEST_DEFAULT_ACK", default_value = "durable")]
    pub default_ack: Ack,

    /// Longest wait of ?ack=committed; past it the answer is 202 with the level that was reached
    #[arg(long, env = "INGEST_COMMIT_TIMEOUT", default_value = "10s", value_parser = time(ROUND_TRIP, DAY))]
    pub commit_timeout: Duration,

    /// Largest body, after decompression
    #[arg(long, env = "INGEST_BODY_BYTES_MAX", default_value = "8MiB", value_parser = at_least(KIB))]
    pub body_bytes_max: ByteSize,

    /// Largest event
    #[arg(long, env = "INGEST_EVENT_BYTES_MAX", default_value = "256KiB", value_parser = at_least(KIB))]
    pub event_bytes_max: ByteSize,

    /// Most events in one body
    #[arg(long, env = "INGEST_EVENTS_MAX", default_value_t = 10_000, value_parser = count(1, 10_000_000))]
    pub events_max: usize,

    /// Memory for bodies and rows on their way; past it the answer is 503
    #[arg(long, env = "INGEST_QUEUE_BYTES_MAX", default_value = "128MiB", value_parser = at_least(KIB))]
    pub queue_bytes_max: ByteSize,

    /// Oldest event that is accepted, counted back from now
    #[arg(long, env = "INGEST_HORIZON_PAST", default_value = "90d", value_parser = time(SECOND, Duration::MAX))]
    pub horizon_past: Duration,

    /// Furthest event in the future that is accepted
    #[arg(long, env = "INGEST_HORIZON_FUTURE", default_value = "1d", value_parser = humantime::parse_duration)]
    pub horizon_future: Duration,
}

/// Settings of the spool: where events are kept from their answer to their COMMIT.
#[derive(Args, Clone, Debug)]
pub struct Spool {
    /// Directory of the spool, on a disk that keeps what it was told to; one for each instance
    #[arg(
        long,
        env = "INGEST_SPOOL_DIR",
        default_value = "spool",
        value_name = "DIR"
    )]
    pub spool_dir: PathBuf,

    /// Disk space that the spool may take; past it the answer is 503
    #[arg(long, env = "INGEST_SPOOL_BYTES_MAX", default_value = "8GiB", value_parser = at_least(KIB))]
    pub spool_bytes_max: ByteSize,

    /// Disk space that is left to others on the same file system
    #[arg(long, env = "INGEST_SPOOL_DISK_RESERVE", default_value = "1GiB")]
    pub spool_disk_reserve: ByteSize,
}

/// Settings of the Postgres side.
#[derive(Args, Clone, Debug)]
pub struct Store {
    /// Writers for each of the two tables, with a connection each
    #[arg(long, env = "INGEST_WRITERS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub writers: u8,

    /// Rows after which a batch is written
    #[arg(long, env = "INGEST_BATCH_ROWS_MAX", default_value_t = 20_000, value_parser = count(1, 10_000_000))]
    pub batch_rows_max: usize,

    /// Bytes after which a batch is written
    #[arg(long, env = "INGEST_BATCH_BYTES_MAX", default_value = "4MiB", value_parser = at_least(KIB))]
    pub batch_bytes_max: ByteSize,

    /// Time after which a batch is written, however small
    #[arg(long, env = "INGEST_FLUSH_AFTER", default_value = "50ms", value_parser = up_to_a_day)]
    pub flush_after: Duration,

    /// The same for a batch with rows whose COMMIT a request waits for
    #[arg(long, env = "INGEST_FLUSH_WAITED_AFTER", default_value = "5ms", value_parser = up_to_a_day)]
    pub flush_waited_after: Duration,

    /// Time that one partition holds: day, week or month
    #[arg(long, env = "INGEST_PARTITION_INTERVAL", default_value = "day")]
    pub partition_interval: Interval,

    /// Partitions to have ready beyond the current one
    #[arg(long, env = "INGEST_PARTITIONS_AHEAD", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub partitions_ahead: u32,

    /// Most partitions that events may bring about in an hour, both tables together
    #[arg(long, env = "INGEST_PARTITIONS_PER_HOUR", default_value_t = 200, value_parser = count(0, 100_000))]
    pub partitions_per_hour: usize,

    /// When partitions get their indexes beside the key: deferred (when they are sealed: a hot partition takes rows several times faster) or full (from the start)
    #[arg(long, env = "INGEST_INDEX_PROFILE", default_value = "deferred")]
    pub index_profile: IndexProfile,

    /// Seal partitions whose time is over: build their indexes, one at a time, and gather statistics
    #[arg(long, env = "INGEST_SEAL", default_value_t = true, action = clap::ArgAction::Set)]
    pub seal: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub sealing: Sealing,
}

/// When partitions are sealed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Sealing {
    /// Grace after the end of a partition's time, and after it was made, until it is sealed; events that come later than that pay for its indexes
    #[arg(long, env = "INGEST_SEAL_AFTER", default_value = "1h", value_parser = humantime::parse_duration)]
    pub seal_after: Duration,
}

/// Settings of the logs, for every command.
#[derive(Args, Clone, Debug)]
pub struct Log {
    /// What to log: error, warn, info, debug, or a filter such as info,recsys_ingest::writer=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true, value_parser = log_filter)]
    pub log_level: String,

    /// How to log
    #[arg(long, env = "LOG_FORMAT", default_value = "pretty", global = true)]
    pub log_format: LogFormat,
}

/// Settings of `dev`.
#[derive(Args, Clone, Debug)]
pub struct Dev {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Where the private Postgres and the keys are kept
    #[arg(long, default_value = ".recsys-ingest", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// PostgreSQL's programs to use, instead of those that are found
    #[arg(long, env = "INGEST_PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,

    /// Where to keep PostgreSQL's programs if they have to be fetched
    #[arg(long, env = "INGEST_PG_CACHE", value_name = "DIR")]
    pub pg_cache: Option<PathBuf>,

    /// Further hosts that requests may name while dev listens on a loopback address; beside these, localhost, 127.0.0.1, [::1] and the address of --listen
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub allow_host: Vec<String>,

    /// The home directory
    #[arg(long, env = "HOME", hide = true)]
    pub home: Option<PathBuf>,

    /// The user's cache directory
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    pub xdg_cache_home: Option<PathBuf>,
}

const KIB: u64 = 1024;
const SECOND: Duration = Duration::from_secs(1);
/// Longest wait that a setting may name. None needs more than a day, and some centuries more would
/// overflow a clock.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest timeout for a client: within less than a round trip, nothing arrives.
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// Parses a wait of at most a day.
fn up_to_a_day(text: &str) -> Result<Duration, String> {
    time(Duration::ZERO, DAY)(text)
}

/// Parses a time between two bounds.
fn time(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| match humantime::parse_duration(text) {
        Ok(time) if time < least => Err(format!(
            "it has to be {} or longer",
            humantime::format_duration(least)
        )),
        Ok(time) if time > most => Err(match most {
            DAY => "it is longer than a day".to_owned(),
            _ => format!("it is longer than {}", humantime::format_duration(most)),
        }),
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{error}; a time is like 5ms, 30s or 90d")),
    }
}

/// Parses a number between two bounds.
fn count(
    least: usize,
    most: usize,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "it has to be a whole number from {least} to {most}"
        )),
    }
}

/// Parses a size of at least `least` bytes.
fn at_least(
    least: u64,
) -> impl Fn(&str) -> Result<ByteSize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() >= least => Ok(size),
        Ok(_) => Err(format!("it has to be {} or more", ByteSize(least))),
        Err(error) => Err(format!("{error}; a size is like 64KiB, 8MiB or 1GiB")),
    }
}

/// Checks a log filter. The library takes an unknown level for the name of a module, and then logs
/// nothing else.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for directive in text.split(',').map(str::trim) {
        let level = match directive.rsplit_once('=') {
            Some((_, level)) => level,
            None => directive,
        };
        // A filter of spans and fields ends in a bracket, or has its level behind one.
        if !is_level(level) && !directive.ends_with(']') {
            return Err(format!(
                "'{level}' is no level; one is {}, and a filter is like info,recsys_ingest::writer=debug",
                LEVELS.join(", ")
            ));
        }
    }
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Serve {
    /// Parses flags as the command line does: what they leave out comes from the environment, or is
    /// the default.
    ///
    /// # Errors
    /// Names the flag that is missing or cannot be parsed.
    pub fn parse_from<'a>(flags: impl IntoIterator<Item = &'a str>) -> clap::error::Result<Self> {
        let command = Self::augment_args(clap::Command::new("serve").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(flags)?)
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
            bail!("--queue-bytes-max {queue_bytes_max} is too large: it has to be less than 4 GiB");
        }
        if queue_bytes_max < body_bytes_max {
            bail!(
                "--queue-bytes-max {queue_bytes_max} is smaller than --body-bytes-max {body_bytes_max}, \
                 so that a body within its limit would never be taken: raise the one or lower the other"
            );
        }
        if self.exposure_hash_salt.expose().is_empty() {
            bail!(
                "EXPOSURE_HASH_SALT is empty: raw ids would be hashed without a key, which anyone can undo"
            );
        }
        match (&self.transport.tls_cert, &self.transport.tls_key) {
            (Some(cert), None) => bail!(
                "--tls-cert {} needs its private key: give --tls-key, too",
                cert.display()
            ),
            (None, Some(key)) => bail!(
                "--tls-key {} needs its certificate: give --tls-cert, too",
                key.display()
            ),
            _ => {}
        }
        Ok(())
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Pretty,
    /// For programs, one object a line
    Json,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_are_such_that_a_clock_can_add_them() {
        assert_eq!(up_to_a_day("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(up_to_a_day("0s"), Ok(Duration::ZERO));
        assert!(up_to_a_day("24h 1ms").unwrap_err().contains("a day"));
        assert!(up_to_a_day("500000000000y").is_err());
        assert!(up_to_a_day("soon").is_err());
    }

    #[test]
    fn a_bare_word_of_the_log_filter_is_a_level() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,recsys_ingest::writer=debug",
            "h2=off,error",
        ] {
            assert_eq!(log_filter(good).as_deref(), Ok(good));
        }
        for bad in [
            "warning", "", "info,", "recsys_ingest::store", "info,h2", "info,h2=loud", "verbose=1",
        ] {
            let refusal = log_filter(bad).unwrap_err();
            assert!(
                refusal.contains("is no level; one is off, error"),
                "{bad}: {refusal}"
            );
        }
    }

    #[test]
    fn numbers_sizes_and_times_say_what_is_accepted() {
        assert_eq!(count(1, 9)("9"), Ok(9));
        for bad in ["0", "10", "-1", "many"] {
            let refusal = count(1, 9)(bad).unwrap_err();
            assert_eq!(refusal, "it has to be a whole number from 1 to 9");
        }
        assert_eq!(at_least(1024)("1KiB"), Ok(ByteSize::kib(1)));
        assert_eq!(
            at_least(1024)("0").unwrap_err(),
            "it has to be 1.0 KiB or more"
        );
        assert!(
            at_least(1024)("much")
                .unwrap_err()
                .contains("a size is like")
        );
        assert_eq!(
            time(SECOND, DAY)("0s").unwrap_err(),
            "it has to be 1s or longer"
        );
    }
}
