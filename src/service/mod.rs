//! Builds the stages, starts them, and stops them from upstream to downstream.
//!
//! Stopping is end-of-stream: once the HTTP service has finished its requests, the last sender to
//! the spool is gone; the spool syncs what it was given and ends the lanes; each writer ends when
//! its lane is empty. No stage polls a flag, and every task is joined. One grace bounds all of it.
//!
//! Every task has a name. One that panics, or ends before it was told to, stops the service, and the
//! error names it.

pub(crate) mod bind;
pub(crate) mod build;
mod disk;
pub mod engine;
mod lanes;
pub(crate) mod open_files;
pub mod prepare;
mod pressure;
pub mod replay;
pub mod report;
pub(crate) mod retention;
mod stop;
pub(crate) mod tasks;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::accounts;
use crate::accounts::board::{Board, Source};
use crate::admission::admit::Admission;
use crate::admission::memory::MemoryLimit;
use crate::admission::record::shards;
use crate::clock;
use crate::config::Serve;
use crate::drain_rate::DrainRate;
use crate::event::table::Table;
use crate::http;
use crate::http::connection::activity::Deadlines;
use crate::http::connection::reload::Reload;
use crate::http::hosts::Hosts;
use crate::http::listener::Connections;
use crate::http::pipeline::HttpService;
use crate::http::routes::Port;
use crate::metrics::Metrics;
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::checks::server::{FirstContact, first_contact};
use crate::tenants::cache_file::KeyCacheFile;
use crate::tenants::refresh::{KeySource, TenantCache};
use crate::writer::opening::Place;
use crate::writer::quarantine;
use build::{
    app, batch_limits, bytes_u32, certificate, connections_to_postgres, key_hasher,
    partition_policy, sealer, small_memory,
};
use disk::{append_on_a_thread, clear_up, watch_disk};
use engine::{Engine, LocalSpool, Opened};
use lanes::{Common, Started};
use prepare::{after, prepare_first};
use report::{Failed, Report};
use stop::{LanesEnd, say_what_is_awaited};
use tasks::Tasks;

/// Records that wait for a sync. A group commit takes all that wait, so this is how many may come
/// in during one sync.
const ENTRIES_MAX: usize = 4096;

/// Time for tasks without work to end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Runs the service on the log of the local disk: see [`run_on`].
pub async fn run(
    config: Serve,
    listeners: Vec<TcpListener>,
    stopping: CancellationToken,
    ready: CancellationToken,
) -> Result<Report> {
    run_on(LocalSpool, config, listeners, stopping, ready).await
}

/// Runs the service on `listeners` until `stopping` is cancelled, then stores what is left.
///
/// The caller owns the sockets and the stop signal, so tests can use port 0. `ready` is cancelled
/// once events are accepted.
pub async fn run_on<E: Engine>(
    engine: E,
    config: Serve,
    listeners: Vec<TcpListener>,
    stopping: CancellationToken,
    ready: CancellationToken,
) -> Result<Report> {
    config.check()?;
    let certificate = certificate(&config.transport)?;
    let operators = config.transport.ops_listen.as_ref();
    let operators = operators
        .map(|address| {
            bind::bind(
                "--ops-listen, INGEST_OPS_LISTEN",
                std::slice::from_ref(address),
            )
        })
        .transpose()?;
    engine.check(&config)?;
    let target = config.database.target()?;
    let metrics = Arc::new(Metrics::new());
    let removes = retention::policy(&config.retention).removes();
    let connections = connections_to_postgres(config.store.writers, config.store.seal, removes);
    let checks = Arc::new(Board::new(Arc::clone(&metrics), clock::now, connections));
    let (connections_max, finding) = open_files::connections_max(config.http.connections_max);
    checks.put(Source::Process, finding.into_iter().collect());
    let FirstContact { refusal, notes } = first_contact(&target, connections).await;
    if let Some(refusal) = refusal {
        bail!("this database cannot be used: {refusal}");
    }
    checks.put(Source::Start, notes);
    let maintainer = Arc::new(PartitionMaintainer::new(
        partition_policy(&config.store.partitioning, config.store.partitions_ahead),
        Arc::clone(&metrics),
    ));
    let drain = Arc::new(DrainRate::new(Instant::now()));
    let tenants = TenantCache::new();
    let (entries, waiting) = flume::bounded(ENTRIES_MAX);
    let Opened {
        capacity,
        appender,
        freed_bytes,
        lanes,
        stores,
        helpers: of_log,
        finish,
    } = tokio::select! {
        opened = engine.open(&config, waiting) => opened?,
        () = stopping.cancelled() => bail!("stopped while the log was being opened"),
    };

    let fenced_off = Arc::new(AtomicBool::new(false));
    let mut stages = Tasks::default();
    let leave = CancellationToken::new();
    let writers_at_once = lanes.at_once(config.store.writers);
    let common = Common {
        place: Place::here(&config.spool.spool_dir),
        target: target.clone(),
        limits: Table::ALL.map(|table| batch_limits(&config, table, writers_at_once)),
        maintainer: Arc::clone(&maintainer),
        drain: Arc::clone(&drain),
        metrics: Arc::clone(&metrics),
        checks: Arc::clone(&checks),
        fenced_off: Arc::clone(&fenced_off),
        leave: leave.clone(),
    };
    let Started { lanes, writers } = common.start(lanes, &mut stages);
    let committed = append_on_a_thread(appender)?;
    let committing = stages.spawn("the committing thread", async move {
        committed.await.expect("the committing thread panicked");
    });
    let admission = Admission::new(
        MemoryLimit::new(bytes_u32(config.intake.queue_bytes_max)?),
        entries,
        Arc::clone(&capacity),
        freed_bytes,
        drain,
        shards(config.store.writers),
        fenced_off,
    );

    let (stop_directory, directory_stops) = watch::channel(false);
    let mut helpers = Tasks::default();
    for (name, task) in of_log {
        helpers.spawn(name, task);
    }
    let migrated = CancellationToken::new();
    let preparing = prepare_first(
        config.migrate_on_start,
        target.clone(),
        Arc::clone(&checks),
        migrated.clone(),
    );
    helpers.spawn_once("the migration", preparing);
    let refreshing = tenants.clone().run(
        target.clone(),
        config.http.key_refresh,
        Arc::clone(&checks),
        directory_stops,
    );
    helpers.spawn("the refresh of keys", after(&migrated, refreshing));
    let sealer = sealer(&config.store, &lanes, &capacity, &metrics).filter(|_| stores);
    let surveyed = target.clone();
    let maintaining = {
        let (target, maintainer) = (target.clone(), Arc::clone(&maintainer));
        async move { maintainer.run(&target).await }
    };
    let retrying = {
        let target = target.clone();
        async move { quarantine::retry::run(&target, &maintainer).await }
    };
    if stores {
        helpers.spawn("the care for partitions", after(&migrated, maintaining));
        helpers.spawn(
            "the retry of rows that wait for a partition",
            after(&migrated, retrying),
        );
    }
    let policy = retention::policy(&config.retention);
    if stores && policy.removes() {
        let (target, metrics) = (target.clone(), Arc::clone(&metrics));
        let removing =
            async move { accounts::retention::task::run(&target, &policy, &metrics).await };
        helpers.spawn("the removal of old partitions", after(&migrated, removing));
    }
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
    let copying = copy.run(tenants.clone(), clock::now);
    match config.http.key_copy_max_age.is_zero() {
        true => helpers.spawn_once("the removal of the copy of keys", copying),
        false => helpers.spawn("the copy of keys", copying),
    };
    helpers.spawn_once("the announcement", announce(tenants.clone(), ready));
    helpers.spawn("the watch over the disk", watch_disk(Arc::clone(&capacity)));
    let tls = certificate.as_ref().map(Reload::tls);
    if let Some(certificate) = certificate {
        let reloading = certificate.run(Arc::clone(&checks));
        helpers.spawn("the look at the certificate's files", reloading);
    }
    let grace = config.shutdown_grace;

    let mut app = app(
        &config,
        admission,
        tenants,
        Arc::clone(&metrics),
        checks,
        lanes.clone(),
        &stopping,
    );
    if let Some(Ok(address)) = listeners.first().map(TcpListener::local_addr) {
        app.live.ingest_port = address.port();
    }
    let surveying = {
        let surveyor = Arc::clone(&app.live.surveyor);
        async move { surveyor.run(&surveyed).await }
    };
    helpers.spawn("the survey for the live page", after(&migrated, surveying));
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
    if let Some(warning) = small_memory(&config.intake) {
        warn!("{warning}");
    }
    info!(
        address = %bind::addresses(&listeners).context("cannot tell the address of the socket")?,
        log = %capacity.id(),
        tls = tls.is_some(),
        "listening"
    );
    let port = match operators {
        None => Port::Only,
        Some(_) => Port::Public,
    };
    let hosts = config.transport.hosts.as_deref().map(Hosts::new);
    let service = HttpService::new(Arc::new(app), port, hosts);
    helpers.spawn_once(
        "the words on a stop",
        say_what_is_awaited(
            stopping.clone(),
            grace,
            Arc::clone(&metrics),
            Arc::clone(&capacity),
        ),
    );
    let for_operators = match operators {
        None => None,
        Some(sockets) => {
            let address = bind::addresses(&sockets);
            info!(address = %address.context("cannot tell the address of the socket")?, "listening for operators");
            let (service, limits) = (service.at(Port::Operators), limits.for_operators());
            let (metrics, stopping) = (Arc::clone(&metrics), stopping.clone());
            Some(http::listener::serve(
                sockets, None, service, limits, metrics, stopping,
            ))
        }
    };
    let for_all = http::listener::serve(listeners, tls, service, limits, metrics, stopping.clone());
    let mut http = pin!(async {
        tokio::join!(for_all, OptionFuture::from(for_operators));
    });
    let mut faults = Vec::new();
    let mut listens = true;
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        // Ends only after a stop, which may come between the two looks.
        () = &mut http => listens = false,
        fault = stages.fault() => faults.push(fault),
        fault = helpers.fault() => faults.push(fault),
    }
    if let Some(fault) = faults.first() {
        error!("{fault}; stopping");
    }
    stopping.cancel();
    let deadline = tokio::time::Instant::now() + grace;
    while listens {
        tokio::select! {
            () = &mut http => listens = false,
            fault = stages.fault() => faults.push(fault),
        }
    }

    // Upstream is gone: the log syncs what it was given, then the lanes drain, or leave what others
    // can store.
    leave.cancel();
    let lanes_end = LanesEnd {
        committing: committing.clone(),
        writers: &writers,
        lanes: &lanes,
        log: capacity.as_ref(),
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
        true => clear_up(finish).await,
        false => error!(
            "{} has not answered within --shutdown-grace: ending without it; what was \
             not acknowledged as durable may be lost, the rest is stored by the next start",
            capacity.medium()
        ),
    }
    let report = Report::of(capacity.as_ref(), &lanes, &counts, in_time);
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

/// Cancels `ready` once events can be accepted: API keys were read, or loaded from the cache file.
async fn announce(tenants: TenantCache, ready: CancellationToken) {
    while tenants.standing() == KeySource::Unread {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    info!("ready");
    ready.cancel();
}
