//! Builds the stages, starts them, and stops them from upstream to downstream.
//!
//! Stopping is end-of-stream: once the HTTP side has finished its requests the
//! last sender of every lane is gone, and each writer ends when its lane is
//! empty. Nothing polls a flag; every task is joined.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{self, App, BodyLimits, Connections, clock};
use crate::config::{self, Serve};
use crate::event::{Limits, Pseudonymizer, Table};
use crate::metrics::Metrics;
use crate::queue::{Budget, Intake, Lanes};
use crate::store::connect::Target;
use crate::store::directory::{ApiKeyHasher, Directory};
use crate::store::{BatchLimits, Chain, Keeper, LaneHealth, Layout, Session, Writer, migrate};

/// Frames that wait in one lane. A frame is a whole request: enough to fill
/// the next batch while one is written, and few enough to refuse early.
const LANE_FRAMES_MAX: usize = 1024;

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
) -> Result<()> {
    let target = config.database.target()?;
    let metrics = Arc::new(Metrics::new());
    let keeper = Arc::new(Keeper::new(layout(&config.store), Arc::clone(&metrics)));
    let directory = Directory::new();

    let mut writers = JoinSet::new();
    let (lanes, health) = spawn_writers(&config.store, &target, &keeper, &metrics, &mut writers);
    let intake = Intake::new(
        Budget::new(bytes_u32(config.intake.queue_bytes_max)?),
        lanes,
    );

    let (stop_directory, directory_stops) = watch::channel(false);
    let mut helpers = JoinSet::new();
    helpers.spawn(prepare_and_keep(
        config.migrate_on_start,
        config.http.key_refresh,
        target,
        Arc::clone(&keeper),
        directory.clone(),
        directory_stops,
    ));
    helpers.spawn(announce(directory.clone(), ready));

    let app = Arc::new(app(
        &config,
        intake,
        directory,
        Arc::clone(&metrics),
        health,
        &stopping,
    )?);
    let limits = Connections {
        max: config.http.connections_max,
        head_timeout: config.http.read_timeout,
        grace: config.shutdown_grace,
    };
    info!(address = %listener.local_addr().context("cannot tell the address of the socket")?, "listening");
    let http = api::serve(
        listener,
        api::router(app),
        limits,
        metrics,
        stopping.clone(),
    );
    let outcome = tokio::select! {
        () = http => Ok(()),
        ended = writers.join_next() => ended_early(ended),
    };
    stopping.cancel();

    // Upstream is gone, so the lanes run dry.
    let all_stored = async { while writers.join_next().await.is_some() {} };
    let stored = tokio::time::timeout(config.shutdown_grace, all_stored).await;
    stop_directory.send_replace(true);
    helpers.shutdown().await;
    outcome?;
    if stored.is_err() {
        bail!(
            "could not store all events within {} s; those that were answered with ack=received are lost",
            config.shutdown_grace.as_secs()
        );
    }
    info!("stopped; everything that was accepted is stored");
    Ok(())
}

/// One writer for each lane, and the lanes' other ends.
fn spawn_writers(
    config: &config::Store,
    target: &Target,
    keeper: &Arc<Keeper>,
    metrics: &Arc<Metrics>,
    writers: &mut JoinSet<()>,
) -> ([Lanes; 2], Vec<Arc<LaneHealth>>) {
    let mut healths = Vec::new();
    let limits = BatchLimits {
        rows_max: config.batch_rows_max,
        bytes_max: bytes_usize(config.batch_bytes_max),
        flush_after: config.flush_after,
    };
    let lanes = Table::ALL.map(|table| {
        let senders = (0..config.writers).map(|_| {
            let (sender, frames) = flume::bounded(LANE_FRAMES_MAX);
            let health = Arc::new(LaneHealth::default());
            healths.push(Arc::clone(&health));
            let writer = Writer {
                table,
                target: target.clone(),
                limits,
                keeper: Arc::clone(keeper),
                metrics: Arc::clone(metrics),
                health,
            };
            writers.spawn(writer.run(frames));
            sender
        });
        Lanes::new(senders.collect())
    });
    (lanes, healths)
}

fn app(
    config: &Serve,
    intake: Intake,
    directory: Directory,
    metrics: Arc<Metrics>,
    lanes: Vec<Arc<LaneHealth>>,
    stopping: &CancellationToken,
) -> Result<App> {
    let salt = config.exposure_hash_salt.expose();
    if salt.is_empty() {
        bail!(
            "EXPOSURE_HASH_SALT is empty: raw ids would be hashed without a key, which anyone can undo"
        );
    }
    Ok(App {
        intake,
        directory,
        key_hasher: ApiKeyHasher::new(config.secrets.api_key_hash_secret.expose().as_bytes()),
        pseudonymizer: Pseudonymizer::new(salt.as_bytes()),
        metrics,
        lanes,
        body_limits: BodyLimits {
            bytes_max: bytes_usize(config.intake.body_bytes_max),
            stall_max: config.http.read_timeout,
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

fn layout(config: &config::Store) -> Layout {
    Layout {
        interval: config.partition_interval,
        ahead: config.partitions_ahead,
        on_demand_per_hour: config.partitions_per_hour,
    }
}

/// Brings the schema up to date, then looks after partitions and keys.
async fn prepare_and_keep(
    migrates: bool,
    key_refresh: Duration,
    target: Target,
    keeper: Arc<Keeper>,
    directory: Directory,
    stop: watch::Receiver<bool>,
) {
    if migrates {
        migrate_until_done(&target).await;
    }
    tokio::join!(
        directory.run(target.clone(), key_refresh, stop),
        keeper.run(&target, clock::now),
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
    while directory.age().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    info!("ready");
    ready.cancel();
}

/// A writer ends when its lane does; before that it is a fault of ours.
fn ended_early(ended: Option<Result<(), tokio::task::JoinError>>) -> Result<()> {
    error!(?ended, "a writer ended before it was told to; stopping");
    bail!("a writer ended before it was told to: {ended:?}");
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
