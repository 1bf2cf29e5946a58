//! Settings of the HTTP side.

use std::time::Duration;

use clap::Args;

use super::address::ListenAddress;
use super::parse::{DAY, ROUND_TRIP, SECOND, count, duration, origins, time, word};
use crate::http::connection::proxies::TrustedProxies;
use crate::tenants::settings::Origins;

/// Settings of the HTTP side.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct Http {
    /// Addresses to listen on, with commas between or as several flags: 127.0.0.1:8080, localhost:8080, [::1]:8080, or :8080 for every address of this machine
    #[arg(
        long,
        env = "INGEST_LISTEN",
        default_value = "127.0.0.1:8080",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub listen: Vec<ListenAddress>,

    /// Most connections open at once, and half of it for one address; past that a new one takes the place of the one that waits longest for a request, or is answered 503 where none waits
    #[arg(long, env = "INGEST_CONNECTIONS_MAX", default_value_t = 8192, value_parser = count::<usize>(1, 1_000_000))]
    pub connections_max: usize,

    /// Proxies whose addresses may have more than half of the connections, as addresses or networks with commas between: 10.0.0.0/8,fd00::5
    #[arg(
        long,
        env = "INGEST_TRUSTED_PROXIES",
        default_value = "",
        value_parser = word::<TrustedProxies>,
        value_name = "NETWORKS"
    )]
    pub trusted_proxies: TrustedProxies,

    /// Origins of web pages that may post where neither the key nor its tenant lists origins, separated by commas: https://shop.example,https://*.shop.example; * is any, null is pages without one
    #[arg(
        long,
        env = "INGEST_CORS_ORIGINS",
        default_value = "",
        value_name = "ORIGINS",
        value_parser = origins
    )]
    pub cors_origins: Origins,

    /// A path that may stand before those of Segment's shape, as /segment in /segment/v1/batch; they are served without it, too
    #[arg(long, env = "INGEST_SEGMENT_PREFIX", value_name = "PATH", value_parser = prefix)]
    pub segment_prefix: Option<String>,

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
    #[arg(long, env = "INGEST_KEY_COPY_MAX_AGE", default_value = "24h", value_parser = duration)]
    pub key_copy_max_age: Duration,
}

/// Parses a path before others: it begins with a slash and ends without one.
fn prefix(text: &str) -> Result<String, String> {
    let path = text.trim().trim_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    match !path.is_empty() && path.chars().all(is_plain) && !path.contains("//") {
        true => Ok(format!("/{path}")),
        false => Err("a path is like /segment: letters, digits, -, ., _ and ~".to_owned()),
    }
}
