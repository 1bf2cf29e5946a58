//! Settings of what is accepted.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::EnumValueParser;

use super::parse::{DAY, KIB, ROUND_TRIP, SECOND, Trimmed, at_least, count, duration, time};
use crate::http::ingest::ack::Ack;

/// Settings of what is accepted.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Intake")]
pub struct Intake {
    /// What an answer waits for where the request does not say with ?ack=
    #[arg(long, env = "INGEST_DEFAULT_ACK", default_value = "durable", ignore_case = true, value_parser = Trimmed(EnumValueParser::<Ack>::new()))]
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
    #[arg(long, env = "INGEST_EVENTS_MAX", default_value_t = 10_000, value_parser = count::<usize>(1, 10_000_000))]
    pub events_max: usize,

    /// Memory for bodies and rows on their way; past it the answer is 503
    #[arg(long, env = "INGEST_QUEUE_BYTES_MAX", default_value = "128MiB", value_parser = at_least(KIB))]
    pub queue_bytes_max: ByteSize,

    /// Oldest event that is accepted, counted back from now
    #[arg(long, env = "INGEST_HORIZON_PAST", default_value = "90d", value_parser = time(SECOND, Duration::MAX))]
    pub horizon_past: Duration,

    /// Furthest event in the future that is accepted
    #[arg(long, env = "INGEST_HORIZON_FUTURE", default_value = "1d", value_parser = duration)]
    pub horizon_future: Duration,
}
