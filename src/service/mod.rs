//! Builds the stages, starts them, and stops them from upstream to downstream.
//!
//! Stopping is end-of-stream: once the HTTP service has finished its requests, the last sender to
//! the spool is gone; the spool syncs what it was given and ends the lanes; each writer ends when
//! its lane is empty. No stage polls a flag, and every task is joined. One grace bounds all of it.
//!
//! Every task has a name. One that panics, or ends before it was told to, stops
//! the service, and the error names it.

pub(crate) mod open_files;
mod pressure;
pub(crate) mod tasks;

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::accounts::board::{Board, Source};
use crate::accounts::ledger::{Stream, Totals};
use crate::accounts::status::LaneStatus;
use crate::admission::admit::Admission;
use crate::admission::arrivals::Arrivals;
use crate::admission::memory::MemoryLimit;
use crate::admission::record::{InMemory, Record, table_of};
use crate::clock;
use crate::config::{self, Serve};
use crate::drain_rate::DrainRate;
use crate::event::body::Limits;
use crate::event::identity::Pseudonymizer;
use crate::event::result::RecordResult;
use crate::http;
use crate::http::app::App;
use crate::http::connection::activity::Deadlines;
use crate::http::ingest::body::read::BodyLimits;
use crate::http::listener::Connections;
use crate::http::pipeline::HttpService;
use crate::log::spool;
use crate::log::spool::shared::Spool;
use crate::metrics::Metrics;
use crate::partitions::maintain::{PartitionMaintainer, PartitionPolicy};
use crate::partitions::seal::sealer::{Policy, Sealer};
use crate::postgres::checks;
use crate::postgres::checks::server::{FirstContact, first_contact};
use crate::postgres::connect::Target;
use crate::postgres::migrate;
use crate::postgres::migrate::History;
use crate::postgres::session::Session;
use crate::tenants::cache_file::KeyCacheFile;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::{KeySource, TenantCache};
use crate::writer::gather::BatchLimits;
use crate::writer::lane::Writer;
use crate::writer::opening::{Opening, Place};
use crate::writer::quarantine;
use tasks::{Fault, Tasks};

/// Connections that may wait to be accepted; the kernel's own limit is usually the same. With mio's
/// 128, a burst of clients is dropped, and each tries again after a second.
const BACKLOG: u32 = 4096;

/// Records that wait for a sync. A group commit takes all that wait, so this is how many may come
/// in during one sync.
const ENTRIES_MAX: usize = 4096;

/// Longest wait for the deletion of finished segments, which takes milliseconds.
const RECLAIM_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often the spool's disk is checked for a stall.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a segment takes apart from its one frame, rounded up.
const FRAME_OVERHEAD_BYTES: u32 = 16 << 10;

/// Pause before a failed start-up step is retried.
const RETRY: Duration = Duration::from_secs(2);

/// When a slow stop first logs what it waits for, and how often after that.
const SAY_FIRST: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(5);

/// How often a stop checks whether any work is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for tasks without work to end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Binds a listening socket.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = match address.is_ipv4() {
            true => TcpSocket::new_v4()?,
            false => TcpSocket::new_v6()?,
        };
        // Without it, a start right after a stop finds the address in use.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| {
        format!(
            "cannot listen on {address}; if another program has the port, choose one with --listen"
        )
    })
}

/// Runs the service on `listener` until `stopping` is cancelled, then stores what is left.
///
/// The caller owns the socket and the stop signal, so tests can use port 0. `ready` is cancelled
/// once events are accepted.
pub async fn run(
    config: Serve,
    listener: TcpListener,
    stopping: CancellationToken,
    ready: CancellationToken,
) -> Result<Report> {
    config.check()?;
    let settings = spool_settings(&config)?;
    let target = config.database.target()?;
    let metrics = Arc::new(Metrics::new());
    let connections = connections_to_postgres(&config.store);
    let checks = Arc::new(Board::new(Arc::clone(&metrics), clock::now, connections));
    let (connections_max, finding) = open_files::connections_max(config.http.connections_max);
    checks.put(Source::Process, finding.into_iter().collect());
    let FirstContact { refusal, notes } = first_contact(&target, connections).await;
    if let Some(refusal) = refusal {
        bail!("this database cannot be used: {refusal}");
    }
    checks.put(Source::Start, notes);
    let maintainer = Arc::new(PartitionMaintainer::new(
        layout(&config.store),
        Arc::clone(&metrics),
    ));
    let drain = Arc::new(DrainRate::new(Instant::now()));
    let directory = TenantCache::new();
    let (entries, waiting) = flume::bounded(ENTRIES_MAX);
    let segment_bytes = settings.segment_bytes;
    let opened = tokio::select! {
        opened = open_spool(config.spool.spool_dir.clone(), settings, waiting) => opened?,
        () = stopping.cancelled() => bail!("stopped while the spool was being read"),
    };
    let spool = opened.spool;

    let fenced_off = Arc::new(AtomicBool::new(false));
    let streams = opened
        .readers
        .iter()
        .map(spool::deliver::reader::LaneReader::stream);
    let opening = Arc::new(Opening::new(
        spool.clone(),
        streams,
        Place::here(&config.spool.spool_dir),
        Arc::clone(&fenced_off),
    ));
    let mut stages = Tasks::default();
    let mut lanes = Vec::new();
    let mut writers = Vec::new();
    for frames in opened.readers {
        let stream = Stream {
            instance: spool.instance(),
            lineage: spool.history().lineage(),
            number: frames.stream(),
            table: table_of(frames.stream()),
        };
        let status = Arc::new(LaneStatus::new(stream));
        lanes.push(Arc::clone(&status));
        let writer = Writer {
            stream,
            target: target.clone(),
            limits: batch_limits(&config),
            opening: Arc::clone(&opening),
            maintainer: Arc::clone(&maintainer),
            spool: spool.clone(),
            drain: Arc::clone(&drain),
            metrics: Arc::clone(&metrics),
            status,
            checks: Arc::clone(&checks),
        };
        let name = format!("the writer of {}, lane {}", stream.table, stream.number / 2);
        writers.push(stages.spawn(name, writer.run(frames)));
    }
    let committed = commit_on_a_thread(opened.committer)?;
    let committing = stages.spawn("the committing thread", async move {
        committed.await.expect("the committing thread panicked");
    });
    let intake = Admission::new(
        MemoryLimit::new(bytes_u32(config.intake.queue_bytes_max)?),
        entries,
        spool.clone(),
        segment_bytes,
        drain,
        config.store.writers,
        fenced_off,
    );

    let (stop_directory, directory_stops) = watch::channel(false);
    let mut helpers = Tasks::default();
    let migrated = CancellationToken::new();
    let preparing = prepare_first(
        config.migrate_on_start,
        target.clone(),
        Arc::clone(&checks),
        migrated.clone(),
    );
    helpers.spawn_once("the migration", preparing);
    let refreshing = directory.clone().run(
        target.clone(),
        config.http.key_refresh,
        Arc::clone(&checks),
        directory_stops,
    );
    helpers.spawn("the refresh of keys", after(&migrated, refreshing));
    let sealer = sealer(&config.store, &lanes, &spool, &metrics);
    let maintaining = {
        let (target, maintainer) = (target.clone(), Arc::clone(&maintainer));
        async move { maintainer.run(&target).await }
    };
    helpers.spawn("the care for partitions", after(&migrated, maintaining));
    let retrying = {
        let target = target.clone();
        async move { quarantine::retry::run(&target, &maintainer).await }
    };
    helpers.spawn(
        "the retry of rows that wait for a partition",
        after(&migrated, retrying),
    );
    if let Some(sealer) = sealer {
        let sealing = async move { sealer.run(&target).await };
        helpers.spawn("the sealing of partitions", after(&migrated, sealing));
    }
    // The spool's lock ensures that no other process writes the key cache file.
    let copy = KeyCacheFile::new(
        &config.spool.spool_dir,
        config.http.key_copy_max_age,
        key_hasher(&config),
    );
    let copying = copy.run(directory.clone(), clock::now);
    match config.http.key_copy_max_age.is_zero() {
        true => helpers.spawn_once("the removal of the copy of keys", copying),
        false => helpers.spawn("the copy of keys", copying),
    };
    helpers.spawn_once("the announcement", announce(directory.clone(), ready));
    helpers.spawn("the watch over the disk", watch_disk(spool.clone()));
    let grace = config.shutdown_grace;

    let app = app(
        &config,
        intake,
        directory,
        Arc::clone(&metrics),
        checks,
        lanes.clone(),
        &stopping,
    );
    let counts = Arc::clone(&metrics);
    let limits = Connections {
        max: connections_max,
        trusted_proxies: config.http.trusted_proxies.clone(),
        deadlines: Deadlines {
            head: config.http.head_timeout,
            idle: config.http.idle_timeout,
            write: config.http.write_timeout,
        },
        grace: config.shutdown_grace,
    };
    let gauge = i64::try_from(connections_max).unwrap_or(i64::MAX);
    metrics.connections_max.set(gauge);
    info!(
        address = %listener.local_addr().context("cannot tell the address of the socket")?,
        instance = %spool.instance(),
        "listening"
    );
    let front = HttpService::new(Arc::new(app));
    helpers.spawn_once(
        "the words on a stop",
        say_what_is_awaited(stopping.clone(), grace, Arc::clone(&metrics), spool.clone()),
    );
    let mut http = pin!(http::listener::serve(
        listener,
        front,
        limits,
        metrics,
        stopping.clone()
    ));
    let mut faults = Vec::new();
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        // Ends only after a stop, which the branch above takes.
        () = &mut http => {}
        fault = stages.fault() => faults.push(fault),
        fault = helpers.fault() => faults.push(fault),
    }
    if let Some(fault) = faults.first() {
        error!("{fault}; stopping");
    }
    stopping.cancel();
    let deadline = tokio::time::Instant::now() + grace;
    loop {
        tokio::select! {
            () = &mut http => break,
            fault = stages.fault() => faults.push(fault),
        }
    }

    // Upstream is gone: the spool syncs what it was given, then the lanes drain.
    let lanes_end = LanesEnd {
        committing: committing.clone(),
        writers: &writers,
        lanes: &lanes,
        spool: &spool,
    };
    let in_time = tokio::select! {
        () = stages.join() => true,
        () = lanes_end.nothing_left() => true,
        () = sleep_until(deadline) => false,
    };
    stop_directory.send_replace(true);
    let has_synced = committing.is_finished();
    stages.abort(END_LIMIT).await;
    helpers.abort(END_LIMIT).await;
    for fault in stages.faults().into_iter().chain(helpers.faults()) {
        error!("{fault} while the service was being stopped");
        faults.push(fault);
    }
    match has_synced {
        // Nothing else touches the files any more.
        true => reclaim(&spool).await,
        false => error!(
            "the disk of the spool has not answered within --shutdown-grace: ending without it; what was \
             not acknowledged as durable may be lost, the rest is stored by the next start"
        ),
    }
    let report = Report::of(&spool, &lanes, &counts, in_time);
    info!(
        stored = report.stored,
        spooled = report.spooled,
        in_time,
        "stopped"
    );
    match faults.into_iter().next() {
        None => Ok(report),
        Some(fault) => Err(Failed { fault, report }.into()),
    }
}

/// A service that stopped because of a fault, and its report.
#[derive(Debug, thiserror::Error)]
#[error("{fault}; what was acknowledged is in the spool or in Postgres")]
pub struct Failed {
    fault: Fault,
    /// What the service leaves behind.
    pub report: Report,
}

/// The lanes during a stop, to see whether any work is left.
struct LanesEnd<'s> {
    committing: AbortHandle,
    writers: &'s [AbortHandle],
    lanes: &'s [Arc<LaneStatus>],
    spool: &'s Spool,
}

impl LanesEnd<'_> {
    /// Waits until the group committer has ended, the spool is empty, and the only writers left are
    /// those that never reached a database: they would keep trying to connect.
    async fn nothing_left(self) {
        loop {
            let mut left = self
                .writers
                .iter()
                .zip(self.lanes)
                .filter(|(writer, _)| !writer.is_finished());
            if self.committing.is_finished()
                && self.spool.usage().items.iter().sum::<u64>() == 0
                && left.all(|(_, lane)| !lane.was_reached())
            {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Logs what a slow stop waits for.
async fn say_what_is_awaited(
    stopping: CancellationToken,
    grace: Duration,
    metrics: Arc<Metrics>,
    spool: Spool,
) {
    stopping.cancelled().await;
    let started = Instant::now();
    tokio::time::sleep(SAY_FIRST).await;
    loop {
        let connections = metrics.connections.get();
        let spooled: u64 = spool.usage().items.iter().sum();
        let left = grace.saturating_sub(started.elapsed()).as_secs();
        let what = match (connections > 0, spooled > 0) {
            (true, true) => "open requests, and for Postgres to take what is spooled",
            (true, false) => "open requests",
            (false, true) => "Postgres to take what is spooled",
            (false, false) => "the last tasks to end",
        };
        info!(
            connections,
            spooled,
            seconds_left = left,
            "stopping: waiting for {what}"
        );
        tokio::time::sleep(SAY_EVERY).await;
    }
}

/// Runs the group committer on a thread. The receiver completes when it has ended; an error means
/// that it panicked.
///
/// The thread is not one of the runtime's: a runtime that is dropped waits for its blocking
/// threads, however long the disk hangs.
fn commit_on_a_thread(
    committer: spool::append::group_committer::GroupCommitter<InMemory, RecordResult>,
) -> Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || {
            committer.run();
            // The service may have stopped waiting.
            ended.send(()).ok();
        })
        .context("cannot start the spool's thread")?;
    Ok(end)
}

/// Deletes finished segments. If the disk hangs, the next start does it.
async fn reclaim(spool: &Spool) {
    let spool = spool.clone();
    let deleted = tokio::task::spawn_blocking(move || spool.reclaim());
    if tokio::time::timeout(RECLAIM_WAIT_MAX, deleted)
        .await
        .is_err()
    {
        warn!(
            "the disk of the spool does not answer: segments that are done with stay for the next start"
        );
    }
}

/// Logs once that the spool's disk is stalled, and once that it answers again.
async fn watch_disk(spool: Spool) {
    let mut hangs = false;
    loop {
        tokio::time::sleep(DISK_LOOK_EVERY).await;
        match (hangs, spool.stalled()) {
            (false, Some(lasts)) => {
                hangs = true;
                warn!(
                    seconds = lasts.as_secs(),
                    "the disk of the spool does not answer; events wait for it, and are refused soon"
                );
            }
            (true, None) => {
                hangs = false;
                info!("the disk of the spool answers again");
            }
            (false, None) | (true, Some(_)) => {}
        }
    }
}

/// What a stopped service leaves behind, as one line of JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows that were made durable under this spool id.
    pub accepted: u64,
    /// Of those, rows that another lineage of the spool accounts for. Below zero: the numbers below
    /// include rows of other copies. Absent if zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub inherited: i64,
    /// Of those, rows that were new in Postgres.
    pub stored: u64,
    /// Of those, rows that were in Postgres already.
    pub duplicates: u64,
    /// Of those, rows that were put into quarantine.
    pub quarantined: u64,
    /// Rows that are only in the spool; the next start stores them.
    pub spooled: u64,
    /// Of the accepted rows, those that are neither in the spool nor known to be stored. Absent if
    /// zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Requests refused since this start for lack of room in memory, in the spool or on its disk.
    pub refused: u64,
    /// Whether everything was done within the grace.
    pub in_time: bool,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Report {
    fn of(spool: &Spool, lanes: &[Arc<LaneStatus>], metrics: &Metrics, in_time: bool) -> Self {
        let fill = spool.usage();
        let totals = |part: fn(&Totals) -> u64| -> u64 {
            let parts = lanes.iter().map(|lane| part(&lane.totals()));
            parts.fold(0, u64::saturating_add)
        };
        Self {
            accepted: fill.accepted.iter().sum(),
            inherited: lanes.iter().map(|lane| lane.totals().inherited).sum(),
            stored: totals(|totals| totals.stored),
            duplicates: totals(|totals| totals.duplicates),
            quarantined: totals(|totals| totals.quarantined),
            spooled: fill.items.iter().sum(),
            lost: fill.lost,
            refused: metrics.refused_for_room() + fill.refused,
            in_time,
        }
    }
}

/// Opens the spool on a blocking thread, as reading its segments takes a while.
async fn open_spool(
    directory: PathBuf,
    settings: spool::settings::Settings,
    entries: flume::Receiver<Record>,
) -> Result<spool::recover::open::Opened<InMemory, RecordResult>> {
    tokio::task::spawn_blocking(move || spool::recover::open::open(&directory, settings, entries))
        .await
        .context("opening the spool was interrupted")?
}

fn spool_settings(config: &Serve) -> Result<spool::settings::Settings> {
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
    // while the disk is still empty, and one table's lag would block the other table.
    let memory = bytes_usize(config.intake.queue_bytes_max);
    let lanes = usize::from(config.store.writers) * 2;
    let settings = spool::settings::Settings {
        streams: config.store.writers * 2,
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
            "--body-bytes-max {body_bytes_max} is too large: the spool takes bodies of up to {}",
            ByteSize(u64::from(largest))
        );
    }
    if bytes_max < settings.bytes_least() {
        bail!(
            "--spool-bytes-max {} is too small for --body-bytes-max {body_bytes_max}: \
             it has to be {} or more, room for two segments of the largest body",
            config.spool.spool_bytes_max,
            ByteSize(settings.bytes_least().next_multiple_of(1 << 20))
        );
    }
    Ok(settings)
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
    intake: Admission,
    directory: TenantCache,
    metrics: Arc<Metrics>,
    checks: Arc<Board>,
    lanes: Vec<Arc<LaneStatus>>,
    stopping: &CancellationToken,
) -> App {
    let salt = config.exposure_hash_salt.expose();
    App {
        arrivals: Arrivals::new(
            bytes_usize(config.intake.queue_bytes_max),
            bytes_usize(config.intake.body_bytes_max),
        ),
        intake,
        directory,
        key_hasher: key_hasher(config),
        pseudonymizer: Pseudonymizer::new(salt.as_bytes()),
        metrics,
        checks,
        lanes,
        body_limits: BodyLimits {
            bytes_max: bytes_usize(config.intake.body_bytes_max),
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
        stopping: stopping.clone(),
    }
}

fn key_hasher(config: &Serve) -> ApiKeyHasher {
    ApiKeyHasher::new(config.secrets.api_key_hash_secret.expose().as_bytes())
}

fn layout(config: &config::Store) -> PartitionPolicy {
    PartitionPolicy {
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
    let pressure = pressure::of_lanes(lanes.to_vec(), spool.clone(), config.batch_rows_max);
    config
        .seal
        .then(|| Sealer::new(policy, pressure, Arc::clone(metrics)))
}

/// Brings the schema up to date where that is wanted, checks it, then cancels `migrated`.
async fn prepare_first(
    migrates: bool,
    target: Target,
    checks: Arc<Board>,
    migrated: CancellationToken,
) {
    prepare_until_done(&target, migrates, &checks).await;
    migrated.cancel();
}

/// Runs a task once the schema is up to date.
fn after<T>(migrated: &CancellationToken, task: T) -> impl Future<Output = ()> + use<T>
where
    T: Future<Output = ()>,
{
    let migrated = migrated.clone();
    async move {
        migrated.cancelled().await;
        task.await;
    }
}

/// Brings the schema up to date and checks it. Retries for as long as Postgres is away.
async fn prepare_until_done(target: &Target, migrates: bool, checks: &Board) {
    let mut complained = false;
    while let Err(error) = prepare_once(target, migrates, checks).await {
        if !std::mem::replace(&mut complained, true) {
            warn!("cannot use the database yet, retrying: {error:#}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Reads the migration history first, and migrates only if something is to be done: a role that may
/// not change the schema can use one that is up to date.
async fn prepare_once(target: &Target, migrates: bool, checks: &Board) -> Result<()> {
    let mut session = Session::open(target, None)
        .await
        .inspect_err(|error| checks.note_error(error))?;
    let history = migrate::look(&session.client).await?;
    let (finding, is_usable) = match &history {
        History::Current => (None, true),
        History::Unreadable => (Some(checks::history::unreadable()), true),
        History::Foreign if !migrates => (Some(checks::history::foreign()), true),
        History::Behind(names) if !migrates => (Some(checks::history::behind(names)), false),
        History::Behind(_) | History::Foreign => match run_migrations(&mut session).await {
            Ok(()) => (None, true),
            // The connection was lost: Postgres refused nothing.
            Err(error) if session.client.is_closed() => return Err(error),
            Err(error) => (Some(checks::history::not_migrated(&error)), false),
        },
    };
    checks.put(Source::Migration, finding.clone().into_iter().collect());
    checks.inspect(&session.client).await?;
    match finding {
        Some(finding) if !is_usable => Err(finding.into()),
        _ => Ok(()),
    }
}

/// Brings the schema up to date.
pub async fn migrate_once(target: &Target) -> Result<()> {
    let mut session = Session::open(target, None).await?;
    run_migrations(&mut session).await
}

async fn run_migrations(session: &mut Session) -> Result<()> {
    let report = migrate::migrate(&mut session.client).await?;
    for name in &report.applied {
        info!(migration = name, "applied");
    }
    if report.is_adopted() {
        info!("the event tables were made by someone else; using them as they are");
    }
    Ok(())
}

/// Postgres connections that a running service keeps open: one for each lane, one each for keys and
/// partitions, and one for sealing.
fn connections_to_postgres(config: &config::Store) -> u32 {
    u32::from(config.writers) * 2 + 2 + u32::from(config.seal)
}

/// Cancels `ready` once events can be accepted: API keys were read, or loaded from the cache file.
async fn announce(directory: TenantCache, ready: CancellationToken) {
    while directory.standing() == KeySource::Unread {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    info!("ready");
    ready.cancel();
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn bytes_usize(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

fn bytes_u32(size: bytesize::ByteSize) -> Result<u32> {
    u32::try_from(size.as_u64())
        .with_context(|| format!("a size of {size} is too large: it has to be less than 4 GiB"))
}
