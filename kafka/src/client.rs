//! Clients of the brokers: their properties, their log, and whether the brokers answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use crate::windows::FETCHED_BYTES;

/// After this long without an acknowledgement a message is refused: well within the time that an
/// intake gives the log to answer.
pub const MESSAGE_TIMEOUT_MS: u32 = 10_000;

/// The same where the record goes to the local spool then: nothing is lost by trying it soon.
pub const FALLBACK_TIMEOUT_MS: u32 = 3000;

/// Messages in the library's queue of a partition, before it stops to fetch.
const QUEUED_MESSAGES: &str = "2000";

/// After this long the next message asks whether messages are acknowledged again.
const PROBE_TIMEOUT_MS: u32 = 2000;

/// Whether the brokers answer.
#[derive(Clone, Debug, Default)]
pub struct Brokers {
    is_away: Arc<AtomicBool>,
}

/// Passes on what librdkafka says.
#[derive(Clone, Debug)]
pub struct Context {
    pub brokers: Brokers,
}

impl Brokers {
    /// Whether the brokers did not acknowledge the last message.
    pub fn are_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// The brokers acknowledge nothing, and why.
    pub fn leave(&self, why: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            warn!("Kafka does not acknowledge messages: {why}");
        }
    }

    /// The brokers acknowledged a message.
    pub fn come_back(&self) {
        if self.are_away() && self.is_away.swap(false, Ordering::Relaxed) {
            info!("Kafka acknowledges messages again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => error!(facility, "librdkafka: {message}"),
            // Lost connections are among them, which the library opens again.
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                debug!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(facility, "librdkafka: {message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.brokers.leave(reason),
            // Of one broker; the others may answer.
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => debug!(%error, "librdkafka: {reason}"),
            _ => warn!(%error, "librdkafka: {reason}"),
        }
    }
}

impl ConsumerContext for Context {}

/// The properties that every client has.
pub fn config(properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "recsys-ingest")
        // A broker that is back is used soon.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("log.connection.close", "false");
    for (name, value) in properties {
        config.set(name, value);
    }
    config
}

/// The properties of a producer of events.
pub fn producer(
    properties: &[(String, String)],
    message_bytes_max: usize,
    timeout_ms: u32,
) -> ClientConfig {
    let mut config = self::config(properties);
    let is_set = |config: &ClientConfig, name| config.get(name).is_some();
    for (name, other, value) in [
        // The idempotent producer spins with several brokers, and the key settles a message that
        // was produced twice. Order between messages means nothing.
        ("enable.idempotence", "enable.idempotence", "false"),
        (
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "5",
        ),
        // Many requests share a produce request, and none waits long for company.
        ("linger.ms", "queue.buffering.max.ms", "1"),
        (
            "queue.buffering.max.messages",
            "queue.buffering.max.messages",
            "20000",
        ),
    ] {
        // A property may be set by its other name.
        if !is_set(&config, name) && !is_set(&config, other) {
            config.set(name, value);
        }
    }
    config
        .set("acks", "all")
        // Else a custom partitioner is not asked about messages without a key.
        .set("sticky.partitioning.linger.ms", "0")
        .set("message.timeout.ms", timeout_ms.to_string())
        .set("message.max.bytes", message_bytes_max.to_string());
    config
}

/// The properties of the producer that passes on what was kept on the local disk. A batch of several
/// messages could be refused as a whole, again and again.
pub fn drain(properties: &[(String, String)], message_bytes_max: usize) -> ClientConfig {
    let mut config = producer(properties, message_bytes_max, MESSAGE_TIMEOUT_MS);
    config.set("batch.num.messages", "1");
    config
}

/// The properties of the producer that asks whether messages are acknowledged again.
pub fn probe(properties: &[(String, String)]) -> ClientConfig {
    let mut config = self::config(properties);
    config
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.timeout.ms", PROBE_TIMEOUT_MS.to_string());
    config
}

/// The properties of a consumer whose queue of a partition has this many bytes before it stops to
/// fetch. Offsets are kept in the ledger and not in Kafka.
pub fn consumer(properties: &[(String, String)], group: &str, queued_bytes: usize) -> ClientConfig {
    let mut config = self::config(properties);
    let queued = (queued_bytes >> 10).max(1).to_string();
    let fetched = FETCHED_BYTES.to_string();
    // A message in a queue keeps the whole answer that it came with.
    let is_larger = ["message.max.bytes", "fetch.message.max.bytes"];
    let is_larger = is_larger.iter().any(|name| config.get(name).is_some());
    for (name, value, is_ours) in [
        ("queued.max.messages.kbytes", queued.as_str(), true),
        ("queued.min.messages", QUEUED_MESSAGES, true),
        ("fetch.max.bytes", fetched.as_str(), !is_larger),
        ("fetch.wait.max.ms", "100", true),
        // Else a queue that was full is empty for a while.
        ("fetch.queue.backoff.ms", "20", true),
    ] {
        if is_ours && config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        // What retention removed before it was stored is a fault, not a place to go on from.
        .set("auto.offset.reset", "error");
    config
}
