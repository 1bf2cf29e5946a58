//! Builds the stages, starts them, and stops them from upstream to downstream.
//!
//! Stopping is end-of-stream: once the HTTP side has finished its requests the
//! last sender to the spool is gone; the spool syncs what it was given and ends
//! the lanes; each writer ends when its lane is empty. Nothing polls a flag;
//! every task is joined.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{self, App, BodyLimits, Connections, Deadlines, Front, clock};
use crate::config::{self, Serve};
use crate::event::{Limits, Pseudonymizer};
use crate::metrics::Metrics;
use crate::queue::{self, Arrivals, Budget, DrainRate, InMemory, Intake, Outcome};
use crate::spool::{self, Spool};
use crate::store::connect::Target;
use crate::store::directory::{ApiKeyHasher, Directory, KeyCopy, Standing};
use crate::store::seal::{Policy, Pressure, Sealer};
use crate::store::{
    BatchLimits, Chain, Keeper, LaneStatus, Layout, Session, Stream, Totals, Writer, migrate,
};

/// Requests that wait for the disk. A group takes what waits, so this is how
/// many may come in during one sync.
const ENTRIES_MAX: usize = 4096;

/// Pause before a start-up step that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Runs the service on `listener` until `stopping`, then stores what is left.
///
/// The caller owns the socket and the signal, so that tests can use port 0.
/// `ready` is cancelled once events are accepted.
pub async fn run(
    config: Serve,
    listener: TcpListener,
    stopping: CancellationToken,
    ready: CancellationToken,
) -> Result<Report> {
    let target = config.database.target()?;
    let metrics = Arc::new(Metrics::new());
    let keeper = Arc::new(Keeper::new(layout(&config.store), Arc::clone(&metrics)));
    let drain = Arc::new(DrainRate::new(Instant::now()));
    let directory = Directory::new();
    let (entries, waiting) = flume::bounded(ENTRIES_MAX);
    let settings = spool_settings(&config)?;
    let segment_bytes = settings.segment_bytes;
    let opened = open_spool(config.spool.spool_dir.clone(), settings, waiting).await?;
    let spool = opened.spool;

    let mut writers = JoinSet::new();
    let mut lanes = Vec::new();
    for frames in opened.readers {
        let stream = Stream {
            instance: spool.instance(),
            number: frames.stream(),
            table: queue::table_of(frames.stream()),
        };
        let status = Arc::new(LaneStatus::new(stream));
        lanes.push(Arc::clone(&status));
        let writer = Writer {
            stream,
            target: target.clone(),
            limits: batch_limits(&config),
            keeper: Arc::clone(&keeper),
            spool: spool.clone(),
            drain: Arc::clone(&drain),
            metrics: Arc::clone(&metrics),
            status,
        };
        writers.spawn(writer.run(frames));
    }
    let committer = opened.committer;
    let mut committing = tokio::task::spawn_blocking(move || committer.run());
    let intake = Intake::new(
        Budget::new(bytes_u32(config.intake.queue_bytes_max)?),
        entries,
        spool.clone(),
        segment_bytes,
        drain,
        config.store.writers,
    );

    let (stop_directory, directory_stops) = watch::channel(false);
    let mut helpers = JoinSet::new();
    helpers.spawn(prepare_and_keep(
        config.migrate_on_start,
        config.http.key_refresh,
        target,
        keeper,
        sealer(&config.store, &lanes, &spool, &metrics),
        directory.clone(),
        directory_stops,
    ));
    // The spool's lock is what makes this one's directory nobody else's.
    let copy = KeyCopy::new(
        &config.spool.spool_dir,
        config.http.key_copy_max_age,
        key_hasher(&config),
    );
    helpers.spawn(copy.run(directory.clone(), clock::now));
    helpers.spawn(announce(directory.clone(), ready));

    let app = app(
        &config,
        intake,
        directory,
        Arc::clone(&metrics),
        lanes.clone(),
        &stopping,
    )?;
    let limits = Connections {
        max: config.http.connections_max,
        trusted_proxies: config.http.trusted_proxies.clone(),
        deadlines: Deadlines {
            head: config.http.head_timeout,
            idle: config.http.idle_timeout,
            write: config.http.write_timeout,
        },
        grace: config.shutdown_grace,
    };
    info!(
        address = %listener.local_addr().context("cannot tell the address of the socket")?,
        instance = %spool.instance(),
        "listening"
    );
    let front = Front::new(Arc::new(app));
    let http = api::serve(listener, front, limits, metrics, stopping.clone());
    let outcome = tokio::select! {
        () = http => Ok(()),
        ended = writers.join_next() => ended_early("a writer", &ended),
        ended = &mut committing => ended_early("the committing thread", &ended),
    };
    stopping.cancel();

    // Upstream is gone: the spool syncs what it was given, then the lanes run dry.
    let drained = async {
        if !committing.is_finished() {
            drop(committing.await);
        }
        while writers.join_next().await.is_some() {}
    };
    let in_time = tokio::time::timeout(config.shutdown_grace, drained)
        .await
        .is_ok();
    writers.shutdown().await;
    stop_directory.send_replace(true);
    helpers.shutdown().await;
    spool.reclaim();
    outcome?;
    let report = Report::of(&spool, &lanes, in_time);
    info!(stored = report.stored, spooled = report.spooled, "stopped");
    Ok(report)
}

/// What a stopped service leaves behind: one line of JSON, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows that were made durable since the instance was born.
    pub accepted: u64,
    /// Of those, rows that were new in Postgres.
    pub stored: u64,
    /// Of those, rows that were in Postgres already.
    pub duplicates: u64,
    /// Of those, rows that were set aside.
    pub quarantined: u64,
    /// Rows that are only in the spool; the next start stores them.
    pub spooled: u64,
    /// Requests that the spool had no room for, since this start.
    pub refused: u64,
    /// Whether everything was done within the grace.
    pub in_time: bool,
}

impl Report {
    fn of(spool: &Spool, lanes: &[Arc<LaneStatus>], in_time: bool) -> Self {
        let fill = spool.fill();
        let totals = |part: fn(&Totals) -> u64| -> u64 {
            lanes.iter().map(|lane| part(&lane.totals())).sum()
        };
        Self {
            accepted: fill.accepted.iter().sum(),
            stored: totals(|totals| totals.stored),
            duplicates: totals(|totals| totals.duplicates),
            quarantined: totals(|totals| totals.quarantined),
            spooled: fill.items.iter().sum(),
            refused: fill.refused,
            in_time,
        }
    }
}

/// Opens the spool; reading what is in it takes a while.
async fn open_spool(
    directory: PathBuf,
    settings: spool::Settings,
    entries: flume::Receiver<spool::Entry<InMemory, Outcome>>,
) -> Result<spool::Opened<InMemory, Outcome>> {
    tokio::task::spawn_blocking(move || spool::open(&directory, settings, entries))
        .await
        .context("opening the spool was interrupted")?
}

fn spool_settings(config: &Serve) -> Result<spool::Settings> {
    let bytes_max = config.spool.spool_bytes_max.as_u64();
    // Rows are a little larger than the events' text: hashes in hex, lengths.
    let frame_bytes_max = bytes_u32(config.intake.body_bytes_max)?.saturating_mul(2);
    let defaults = spool::Settings::default();
    // Were all lanes behind, they might hold half of the memory, and batches in
    // hand, two to a lane, a quarter: the rest is for bodies that come in, or an outage would end
    // intake with the disk still empty, and one table's backlog the other's intake.
    let memory = bytes_usize(config.intake.queue_bytes_max);
    let lanes = usize::from(config.store.writers) * 2;
    Ok(spool::Settings {
        streams: config.store.writers * 2,
        // Space comes back by whole segments, so a small spool has small ones.
        segment_bytes: defaults.segment_bytes.min(bytes_max / 8),
        frame_bytes_max,
        bytes_max,
        disk_reserve_bytes: config.spool.spool_disk_reserve.as_u64(),
        lane_bytes_max: defaults.lane_bytes_max.min(memory / 2 / lanes),
        ..defaults
    })
}

fn batch_limits(config: &Serve) -> BatchLimits {
    let memory = bytes_usize(config.intake.queue_bytes_max);
    let lanes = usize::from(config.store.writers) * 2;
    BatchLimits {
        rows_max: config.store.batch_rows_max,
        bytes_max: bytes_usize(config.store.batch_bytes_max).min(memory / 4 / (2 * lanes)),
        flush_after: config.store.flush_after,
        flush_waited_after: config.store.flush_waited_after,
    }
}

fn app(
    config: &Serve,
    intake: Intake,
    directory: Directory,
    metrics: Arc<Metrics>,
    lanes: Vec<Arc<LaneStatus>>,
    stopping: &CancellationToken,
) -> Result<App> {
    let salt = config.exposure_hash_salt.expose();
    if salt.is_empty() {
        bail!(
            "EXPOSURE_HASH_SALT is empty: raw ids would be hashed without a key, which anyone can undo"
        );
    }
    Ok(App {
        arrivals: Arrivals::new(
            bytes_usize(config.intake.queue_bytes_max),
            bytes_usize(config.intake.body_bytes_max),
        ),
        intake,
        directory,
        key_hasher: key_hasher(config),
        pseudonymizer: Pseudonymizer::new(salt.as_bytes()),
        metrics,
        lanes,
        body_limits: BodyLimits {
            bytes_max: bytes_usize(config.intake.body_bytes_max),
            pause_max: config.http.body_timeout,
        },
        event_limits: Limits {
            events_max: config.intake.events_max,
            event_bytes_max: bytes_usize(config.intake.event_bytes_max),
        },
        default_ack: config.intake.default_ack,
        commit_timeout: config.intake.commit_timeout,
        horizon_past_us: micros(config.intake.horizon_past),
        horizon_future_us: micros(config.intake.horizon_future),
        stopping: stopping.clone(),
    })
}

fn key_hasher(config: &Serve) -> ApiKeyHasher {
    ApiKeyHasher::new(config.secrets.api_key_hash_secret.expose().as_bytes())
}

fn layout(config: &config::Store) -> Layout {
    Layout {
        interval: config.partition_interval,
        ahead: config.partitions_ahead,
        on_demand_per_hour: config.partitions_per_hour,
        indexes: config.index_profile,
    }
}

fn sealer(
    config: &config::Store,
    lanes: &[Arc<LaneStatus>],
    spool: &Spool,
    metrics: &Arc<Metrics>,
) -> Option<Sealer> {
    let policy = Policy {
        profile: config.index_profile,
        after: config.sealing.seal_after,
    };
    let pressure = Pressure::new(lanes.to_vec(), spool.clone(), config.batch_rows_max);
    config
        .seal
        .then(|| Sealer::new(policy, pressure, Arc::clone(metrics)))
}

/// Brings the schema up to date, then looks after partitions and keys.
async fn prepare_and_keep(
    migrates: bool,
    key_refresh: Duration,
    target: Target,
    keeper: Arc<Keeper>,
    sealer: Option<Sealer>,
    directory: Directory,
    stop: watch::Receiver<bool>,
) {
    if migrates {
        migrate_until_done(&target).await;
    }
    tokio::join!(
        directory.run(target.clone(), key_refresh, stop),
        keeper.run(&target, clock::now),
        async {
            if let Some(sealer) = &sealer {
                sealer.run(&target, clock::now).await;
            }
        },
    );
}

/// Brings the schema up to date, however long Postgres is away.
async fn migrate_until_done(target: &Target) {
    let mut complained = false;
    while let Err(error) = migrate_once(target).await {
        if !std::mem::replace(&mut complained, true) {
            warn!("cannot migrate yet, retrying: {error:#}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Brings the schema up to date.
pub async fn migrate_once(target: &Target) -> Result<()> {
    let mut session = Session::open(target, None)
        .await
        .map_err(|trouble| anyhow::anyhow!("{}", Chain(&trouble)))?;
    let report = migrate::migrate(&mut session.client).await?;
    for name in &report.applied {
        info!(migration = name, "applied");
    }
    if report.is_adopted() {
        info!("the event tables were made by someone else; using them as they are");
    }
    Ok(())
}

/// Says when events can be accepted: as soon as somebody's key is known.
async fn announce(directory: Directory, ready: CancellationToken) {
    while directory.standing() == Standing::Unread {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    info!("ready");
    ready.cancel();
}

/// A stage ends when the one before it does; before that it is a fault of ours.
fn ended_early(stage: &str, ended: &dyn std::fmt::Debug) -> Result<()> {
    error!(?ended, "{stage} ended before it was told to; stopping");
    bail!("{stage} ended before it was told to: {ended:?}");
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn bytes_usize(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

fn bytes_u32(size: bytesize::ByteSize) -> Result<u32> {
    u32::try_from(size.as_u64()).with_context(|| format!("{size} is more than 4 GiB"))
}
