//! Metrics, in the Prometheus text format.
//!
//! Labels come from small closed sets; tenants, users and request ids are never among them. Metrics
//! are updated once a request or once a batch, not once an event.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::event::table::Table;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventOutcome {
    /// Valid, and accepted.
    Accepted,
    /// Invalid; the response says why.
    Rejected,
    /// New in Postgres.
    Stored,
    /// In Postgres already.
    Duplicate,
    /// In quarantine: refused by Postgres, or without a partition.
    Quarantined,
}

impl EncodeLabelValue for EventOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            EventOutcome::Accepted => "accepted",
            EventOutcome::Rejected => "rejected",
            EventOutcome::Stored => "stored",
            EventOutcome::Duplicate => "duplicate",
            EventOutcome::Quarantined => "quarantined",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl EncodeLabelValue for Table {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Where the rows are that were accepted under this spool id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    /// All accepted rows.
    Accepted,
    /// New in Postgres.
    Stored,
    /// In Postgres already.
    Duplicate,
    /// In quarantine.
    Quarantined,
    /// Only in the spool.
    Spooled,
    /// Neither in the spool nor known to be stored.
    Lost,
}

impl EncodeLabelValue for RowState {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            RowState::Accepted => "accepted",
            RowState::Stored => "stored",
            RowState::Duplicate => "duplicate",
            RowState::Quarantined => "quarantined",
            RowState::Spooled => "spooled",
            RowState::Lost => "lost",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

/// A table and where its rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByState {
    pub table: Table,
    /// Where the rows are.
    pub state: RowState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByTable {
    pub table: Table,
}

/// A table and what became of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    pub table: Table,
    /// What became of the events.
    pub outcome: EventOutcome,
}

/// A table and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    pub table: Table,
    /// A code, or the kind of an error.
    pub reason: &'static str,
}

/// A finding of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByFinding {
    /// A kind of finding.
    pub code: &'static str,
    pub severity: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCause {
    pub cause: &'static str,
}

/// A route and the status of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByStatus {
    /// The route's path.
    pub route: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// The code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCode {
    /// The code of the response.
    pub reason: &'static str,
}

/// A message of Segment's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByMessage {
    /// Its type: `track`, `identify` and so on.
    pub kind: &'static str,
}

/// A limit on what callers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByLimit {
    /// Which limit: `tenant`, `key` or `address`.
    pub scope: &'static str,
    /// What is limited: events or bytes.
    pub unit: &'static str,
}

/// Codes of refusals for lack of room: in memory, in the spool, or on its disk.
const FOR_ROOM: [&str; 3] = ["overloaded", "spool_full", "disk_failed"];

type Counters<L> = Family<L, Counter>;
type Histograms = Family<ByTable, Histogram>;

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events by table and what became of them.
    pub events: Counters<ByOutcome>,
    /// Rejected events by reason.
    pub rejections: Counters<ByReason>,
    /// Requests by route and status.
    pub requests: Counters<ByStatus>,
    /// Requests that were refused with 503 or 429, by the code of the response.
    pub refused_requests: Counters<ByCode>,
    /// Requests that were refused with 429, by the limit.
    pub limited_requests: Counters<ByLimit>,
    /// Events of those whose body was read.
    pub limited_events: Counters<ByLimit>,
    /// Messages of Segment's shape that tell of no items, by type.
    pub not_collected: Counters<ByMessage>,
    /// Look-ups of unknown keys and tenants, one by one.
    pub caller_lookups: Gauge<i64, AtomicI64>,
    /// Seconds from a request's head to its response.
    pub request_seconds: Histogram,
    /// Rows in a batch.
    pub batch_rows: Histograms,
    /// Seconds from a batch's BEGIN to its COMMIT.
    pub copy_seconds: Histograms,
    /// Failed attempts to store a batch, by the kind of the error.
    pub store_errors: Counters<ByReason>,
    /// Batches that were checked for duplicates before their COPY, because some of their rows had
    /// been seen shortly before.
    pub checked_batches: Counters<ByTable>,
    /// Partitions made, ahead of time or on demand.
    pub partitions_created: Counters<ByTable>,
    /// Seconds from now on that partitions cover without a gap.
    pub partitions_ahead_seconds: Family<ByTable, Gauge<f64, AtomicU64>>,
    /// Partitions that this process sealed.
    pub partitions_sealed: Counters<ByTable>,
    /// Partitions that are due to be sealed and are not.
    pub partitions_unsealed: Family<ByTable, Gauge<i64, AtomicI64>>,
    /// Partitions that this process removed because of their age.
    pub partitions_removed: Counters<ByTable>,
    /// Age of the oldest row that is not stored, 0 if there is none.
    pub oldest_unstored_seconds: Family<ByTable, Gauge<f64, AtomicU64>>,
    /// Records of the log that are not stored.
    pub unstored_records: Family<ByTable, Gauge<i64, AtomicI64>>,
    /// Bytes of request bodies and rows in memory.
    pub queue_bytes: Gauge<i64, AtomicI64>,
    /// Where the rows are that were accepted under this spool id.
    pub rows: Family<ByState, Gauge<i64, AtomicI64>>,
    /// Bytes of the spool's files.
    pub spool_bytes: Gauge<i64, AtomicI64>,
    /// Most bytes that the spool's files may have.
    pub spool_bytes_max: Gauge<i64, AtomicI64>,
    /// Accepted rows that are neither in the spool nor known to be stored.
    pub spool_lost_rows: Gauge<i64, AtomicI64>,
    /// Requests that were refused for lack of room.
    pub spool_refused_frames: Gauge<i64, AtomicI64>,
    /// Open HTTP connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Log lines that were lost.
    pub log_lost_lines: Gauge<i64, AtomicI64>,
    /// Most HTTP connections that may be open at once.
    pub connections_max: Gauge<i64, AtomicI64>,
    /// Findings that are in force.
    pub findings: Family<ByFinding, Gauge<i64, AtomicI64>>,
    /// How far this machine's clock is ahead of Postgres's.
    pub clock_offset_seconds: Gauge<f64, AtomicU64>,
    /// Connections that this side closed, by cause.
    pub connections_closed: Counters<ByCause>,
    /// TLS handshakes that failed, by cause.
    pub tls_handshake_failures: Counters<ByCause>,
}

impl Metrics {
    /// Creates and registers all metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("recsys_ingest");
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let metrics = Self {
            events: Family::default(),
            rejections: Family::default(),
            requests: Family::default(),
            refused_requests: Family::default(),
            limited_requests: Family::default(),
            limited_events: Family::default(),
            not_collected: Family::default(),
            caller_lookups: Gauge::default(),
            request_seconds: seconds(),
            batch_rows: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 4.0, 9))
            }),
            copy_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0005, 2.0, 16))
            }),
            store_errors: Family::default(),
            checked_batches: Family::default(),
            partitions_created: Family::default(),
            partitions_ahead_seconds: Family::default(),
            partitions_sealed: Family::default(),
            partitions_unsealed: Family::default(),
            partitions_removed: Family::default(),
            oldest_unstored_seconds: Family::default(),
            unstored_records: Family::default(),
            queue_bytes: Gauge::default(),
            rows: Family::default(),
            spool_bytes: Gauge::default(),
            spool_bytes_max: Gauge::default(),
            spool_lost_rows: Gauge::default(),
            spool_refused_frames: Gauge::default(),
            connections: Gauge::default(),
            log_lost_lines: Gauge::default(),
            connections_max: Gauge::default(),
            findings: Family::default(),
            clock_offset_seconds: Gauge::default(),
            connections_closed: Family::default(),
            tls_handshake_failures: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "events",
            "Events by table and outcome",
            metrics.events.clone(),
        );
        registry.register(
            "rejections",
            "Rejected events by reason",
            metrics.rejections.clone(),
        );
        registry.register(
            "requests",
            "Requests by route and status",
            metrics.requests.clone(),
        );
        registry.register(
            "refused_requests",
            "Requests refused with 503 or 429, by the code of the answer",
            metrics.refused_requests.clone(),
        );
        registry.register(
            "limited_requests",
            "Requests refused with 429, by whose limit it was and of what",
            metrics.limited_requests.clone(),
        );
        registry.register(
            "limited_events",
            "Events that were discarded with 429 after their body was read, by whose limit it was and of what",
            metrics.limited_events.clone(),
        );
        registry.register(
            "not_collected_messages",
            "Messages of Segment's shape that tell of no items and are not kept, by type",
            metrics.not_collected.clone(),
        );
        registry.register(
            "caller_lookups",
            "Unknown keys and tenants that were looked up in the database one by one, since the start",
            metrics.caller_lookups.clone(),
        );
        registry.register(
            "request_seconds",
            "Seconds from a request's head to its answer",
            metrics.request_seconds.clone(),
        );
        registry.register("batch_rows", "Rows in a batch", metrics.batch_rows.clone());
        registry.register(
            "copy_seconds",
            "Seconds from a batch's BEGIN to its COMMIT",
            metrics.copy_seconds.clone(),
        );
        registry.register(
            "store_errors",
            "Failed attempts to store a batch, by class of error",
            metrics.store_errors.clone(),
        );
        registry.register(
            "checked_batches",
            "Batches that were checked for duplicates before their COPY, because some had been seen shortly before",
            metrics.checked_batches.clone(),
        );
        registry.register(
            "partitions_created",
            "Partitions made, ahead of time or on demand",
            metrics.partitions_created.clone(),
        );
        registry.register(
            "partitions_ahead_seconds",
            "Seconds from now on that partitions cover without a gap",
            metrics.partitions_ahead_seconds.clone(),
        );
        registry.register(
            "partitions_sealed",
            "Partitions that this instance sealed: indexes built, statistics gathered",
            metrics.partitions_sealed.clone(),
        );
        registry.register(
            "partitions_unsealed",
            "Partitions whose time is over and that are not sealed yet",
            metrics.partitions_unsealed.clone(),
        );
        registry.register(
            "partitions_removed",
            "Partitions that this instance removed, as they were older than what is kept",
            metrics.partitions_removed.clone(),
        );
        registry.register(
            "oldest_unstored_seconds",
            "Age of the oldest row that is not stored, from its receipt on; 0 if there is none",
            metrics.oldest_unstored_seconds.clone(),
        );
        registry.register(
            "unstored_records",
            "Records of the log that are not stored, one for each request and table; with Kafka of the partitions that this instance stores",
            metrics.unstored_records.clone(),
        );
        registry.register(
            "queue_bytes",
            "Bytes of request bodies and rows in memory",
            metrics.queue_bytes.clone(),
        );
        registry.register(
            "rows",
            "Where the rows are that this instance accepted since it was born: accepted = stored + duplicate + quarantined + spooled",
            metrics.rows.clone(),
        );
        registry.register(
            "spool_bytes",
            "Bytes of the spool's files",
            metrics.spool_bytes.clone(),
        );
        registry.register(
            "spool_bytes_max",
            "Bytes that the spool's files may have",
            metrics.spool_bytes_max.clone(),
        );
        registry.register(
            "spool_lost_rows",
            "Rows that were durable and turned out to be damaged on disk",
            metrics.spool_lost_rows.clone(),
        );
        registry.register(
            "spool_refused_frames",
            "Requests for whose events there was no room in memory, in the spool or on its disk, since the start",
            metrics.spool_refused_frames.clone(),
        );
        registry.register(
            "connections",
            "Open HTTP connections",
            metrics.connections.clone(),
        );
        registry.register(
            "log_lost_lines",
            "Lines of the log that could not be written, or not as fast as they came",
            metrics.log_lost_lines.clone(),
        );
        registry.register(
            "connections_max",
            "HTTP connections that may be open at once",
            metrics.connections_max.clone(),
        );
        registry.register(
            "findings",
            "What the checks of database and machine found and is still so, by code and severity",
            metrics.findings.clone(),
        );
        registry.register(
            "clock_offset_seconds",
            "Seconds by which this machine's clock is ahead of Postgres's, at the last refresh of the keys",
            metrics.clock_offset_seconds.clone(),
        );
        registry.register(
            "connections_closed",
            "HTTP connections closed because the client kept them waiting, or to make room for others",
            metrics.connections_closed.clone(),
        );
        registry.register(
            "tls_handshake_failures",
            "TLS handshakes that failed: the client does not trust the certificate, has no version or protocol in common, sends something else, or ends the connection",
            metrics.tls_handshake_failures.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// All metrics in the text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts a request that is refused with 503 or 429.
    pub fn refuse(&self, reason: &'static str) {
        self.refused_requests
            .get_or_create(&ByCode { reason })
            .inc();
    }

    /// Requests that were refused for lack of room.
    pub fn refused_for_room(&self) -> u64 {
        let count = |reason| {
            self.refused_requests
                .get_or_create(&ByCode { reason })
                .get()
        };
        FOR_ROOM.map(count).iter().sum()
    }

    /// Counts events of one table.
    pub fn count(&self, table: Table, outcome: EventOutcome, events: usize) {
        if events > 0 {
            self.events
                .get_or_create(&ByOutcome { table, outcome })
                .inc_by(events as u64);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
