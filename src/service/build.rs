//! From settings to the values that the stages take.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::pressure;
use crate::accounts::board::Board;
use crate::accounts::status::LaneStatus;
use crate::accounts::survey::Surveyor;
use crate::admission::admit::Admission;
use crate::admission::arrivals::Arrivals;
use crate::admission::record::{shards, streams};
use crate::clock;
use crate::config::intake::Intake;
use crate::config::{self, Serve};
use crate::event::body::Limits;
use crate::event::identity::Pseudonymizer;
use crate::event::table::Table;
use crate::http::app::App;
use crate::http::connection::certificate::Files;
use crate::http::connection::reload::Reload;
use crate::http::ingest::body::read::BodyLimits;
use crate::http::limits::{DefaultLimits, RateLimits};
use crate::http::live::tap::Tap;
use crate::http::live::view::LiveView;
use crate::log::append::Capacity;
use crate::log::spool;
use crate::metrics::Metrics;
use crate::partitions::maintain::PartitionPolicy;
use crate::partitions::seal::sealer::{Policy, Sealer};
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::TenantCache;
use crate::writer::gather::BatchLimits;

/// What a segment takes apart from its one frame, rounded up.
const FRAME_OVERHEAD_BYTES: u32 = 16 << 10;

pub(crate) fn spool_settings(config: &Serve) -> Result<spool::settings::Settings> {
    let bytes_max = config.spool.spool_bytes_max.as_u64();
    // Rows are mostly as large as their events' text. A raw id of few letters becomes 64 digits, so
    // rows may take four times as much. Rows that do not fit are refused, with the number of events
    // that do. A small spool must have room for two records, as a segment each.
    let body_bytes_max = bytes_u32(config.intake.body_bytes_max)?;
    let half = u32::try_from(bytes_max / 2).unwrap_or(u32::MAX);
    let frame_bytes_least = body_bytes_max.saturating_mul(2);
    let frame_bytes_max = body_bytes_max
        .saturating_mul(4)
        .min(half.saturating_sub(FRAME_OVERHEAD_BYTES))
        .max(frame_bytes_least)
        .min(spool::format::PAYLOAD_BYTES_MAX);
    let defaults = spool::settings::Settings::default();
    // All lanes together keep at most half of the memory limit, and their batches (two a lane) at
    // most a quarter. The rest is for bodies that arrive: otherwise an outage would stop admission
    // while the disk is still empty, and one table's lag would block the others.
    let memory = bytes_usize(config.intake.queue_bytes_max);
    let streams = streams(config.store.writers);
    let lanes = streams.len();
    let settings = spool::settings::Settings {
        streams,
        // Space is freed by whole segments, so a small spool has small ones.
        segment_bytes: defaults.segment_bytes.min(bytes_max / 8),
        frame_bytes_max,
        frame_bytes_least,
        bytes_max,
        disk_reserve_bytes: config.spool.spool_disk_reserve.as_u64(),
        lane_bytes_max: defaults.lane_bytes_max.min(memory / 2 / lanes),
        ..defaults
    };
    let largest = spool::format::PAYLOAD_BYTES_MAX / 2;
    let is_too_large = body_bytes_max > largest;
    let body_bytes_max = config.intake.body_bytes_max;
    if is_too_large {
        bail!(
            "--body-bytes-max (INGEST_BODY_BYTES_MAX) {body_bytes_max} is too large: the spool takes bodies of up to {}",
            ByteSize(u64::from(largest))
        );
    }
    if bytes_max < settings.bytes_least() {
        bail!(
            "--spool-bytes-max (INGEST_SPOOL_BYTES_MAX) {} is too small for \
             --body-bytes-max (INGEST_BODY_BYTES_MAX) {body_bytes_max}: \
             it has to be {} or more, room for two segments of the largest body",
            config.spool.spool_bytes_max,
            ByteSize(settings.bytes_least().next_multiple_of(1 << 20))
        );
    }
    Ok(settings)
}

/// The limits of a table's batches if `writers` lanes of each table hold records at the same time.
pub(super) fn batch_limits(config: &Serve, table: Table, writers: u8) -> BatchLimits {
    let memory = bytes_usize(config.intake.queue_bytes_max);
    let lanes = usize::from(writers) * Table::OF_SUITE.len();
    let share = memory / 4 / (2 * lanes);
    // Assignments are few and small. Their one lane takes none of the others' share.
    let share = match table {
        Table::Exposures | Table::Interactions => share,
        Table::Assignments => share / 8,
    };
    BatchLimits {
        rows_max: config.store.batch_rows_max,
        bytes_max: bytes_usize(config.store.batch_bytes_max).min(share),
        flush_after: config.store.flush_after,
        flush_waited_after: config.store.flush_waited_after,
    }
}

pub(super) fn app(
    config: &Serve,
    admission: Admission,
    tenants: TenantCache,
    metrics: Arc<Metrics>,
    checks: Arc<Board>,
    lanes: Vec<Arc<LaneStatus>>,
    stopping: &CancellationToken,
) -> App {
    let salt = config.salt.exposure_hash_salt.expose();
    let limits = &config.rate_limits;
    let defaults = DefaultLimits {
        tenant: limits.limits_tenant,
        key: limits.limits_key,
        address: limits.limits_address,
        publish_key: limits.limits_publish_key,
        publish_address: limits.limits_publish_address,
    };
    let proxies = config.http.trusted_proxies.clone();
    App {
        rate_limits: RateLimits::new(defaults, proxies, Arc::clone(&metrics)),
        arrivals: Arrivals::new(
            bytes_usize(config.intake.queue_bytes_max),
            bytes_usize(config.intake.body_bytes_max),
        ),
        admission,
        tenants,
        cors_origins: config.http.cors_origins.clone(),
        segment_prefix: config.http.segment_prefix.clone(),
        key_hasher: key_hasher(config),
        pseudonymizer: Pseudonymizer::new(salt.as_bytes()),
        metrics,
        checks,
        lanes,
        body_limits: BodyLimits {
            bytes_max: largest_body(&config.intake),
            pause_max: config.http.body_timeout,
        },
        event_limits: Limits {
            events_max: config.intake.events_max,
            event_bytes_max: bytes_usize(config.intake.event_bytes_max),
        },
        decoding: Arc::new(Semaphore::new(
            std::thread::available_parallelism().map_or(1, NonZero::get),
        )),
        default_ack: config.intake.default_ack,
        commit_timeout: config.intake.commit_timeout,
        horizon_past_us: micros(config.intake.horizon_past),
        horizon_future_us: micros(config.intake.horizon_future),
        live: LiveView {
            tap: Tap::new(clock::now()),
            surveyor: Arc::new(Surveyor::default()),
            env_file: config.transport.env_file.clone(),
            // Known once it is bound.
            ingest_port: 0,
            is_https: config.transport.tls_cert.is_some(),
            is_apart: config.transport.ops_listen.is_some(),
            started: Instant::now(),
        },
        stopping: stopping.clone(),
    }
}

/// The largest body that there is ever memory for, in bytes.
///
/// A tenant that is alone holds at most eight ninths of the memory. A body beyond that would be
/// refused for ever as if other bodies held it.
fn largest_body(intake: &Intake) -> usize {
    let wanted = bytes_usize(intake.body_bytes_max);
    wanted.min(bytes_usize(intake.queue_bytes_max) / 9 * 8)
}

/// What to say of a memory limit that is small for the largest bodies: body, scratch memory and rows
/// take about three times the body.
pub(super) fn small_memory(intake: &Intake) -> Option<String> {
    let Intake {
        queue_bytes_max,
        body_bytes_max,
        ..
    } = intake;
    let least = body_bytes_max.as_u64().saturating_mul(3);
    (queue_bytes_max.as_u64() < least).then(|| {
        format!(
            "--queue-bytes-max (INGEST_QUEUE_BYTES_MAX) {queue_bytes_max} is less than three times \
             --body-bytes-max (INGEST_BODY_BYTES_MAX) {body_bytes_max}: \
             the largest bodies are refused with 413, as they take more memory than there is; raise the one \
             or lower the other"
        )
    })
}

/// The certificate of the listener, if it is to speak HTTPS.
pub(super) fn certificate(config: &config::transport::Transport) -> Result<Option<Reload>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    let files = Files {
        cert: cert.clone(),
        key: key.clone(),
    };
    Reload::start(files).map(Some)
}

pub(super) fn key_hasher(config: &Serve) -> ApiKeyHasher {
    let secrets = &config.secrets;
    let hasher = ApiKeyHasher::new(secrets.api_key_hash_secret.expose().as_bytes());
    match &secrets.api_key_hash_secret_previous {
        Some(previous) => hasher.with_previous(previous.expose().as_bytes()),
        None => hasher,
    }
}

/// `ahead` partitions are made before events need them.
pub(super) fn partition_policy(
    config: &config::store::Partitioning,
    ahead: u32,
) -> PartitionPolicy {
    PartitionPolicy {
        interval: config.partition_interval,
        ahead,
        on_demand_per_hour: config.partitions_per_hour,
        indexes: config.index_profile,
    }
}

pub(super) fn sealer(
    config: &config::store::Store,
    lanes: &[Arc<LaneStatus>],
    log: &Arc<dyn Capacity>,
    metrics: &Arc<Metrics>,
) -> Option<Sealer> {
    let policy = Policy {
        profile: config.partitioning.index_profile,
        after: config.sealing.seal_after,
    };
    let pressure = pressure::of_lanes(lanes.to_vec(), Arc::clone(log), config.batch_rows_max);
    config
        .seal
        .then(|| Sealer::new(policy, pressure, Arc::clone(metrics)))
}

/// Postgres connections that a running service keeps open: one for each lane, one each for keys,
/// partitions and the retry of quarantined rows, and one each for sealing and for removing what is old.
pub(crate) fn connections_to_postgres(writers: u8, seals: bool, removes: bool) -> u32 {
    let lanes = shards(writers).map(u32::from);
    lanes.iter().sum::<u32>() + 3 + u32::from(seals) + u32::from(removes)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn bytes_usize(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

pub(super) fn bytes_u32(size: bytesize::ByteSize) -> Result<u32> {
    u32::try_from(size.as_u64())
        .with_context(|| format!("a size of {size} is too large: it has to be less than 4 GiB"))
}
