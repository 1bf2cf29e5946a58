//! Stores what a spool directory holds, without taking events: for the disk of a machine that is
//! gone.
//!
//! Invariant: rows go the way of a running service, through the same spool, lanes and ledger. So
//! what was committed already is skipped, and a later start on the directory or a copy of it fences
//! this one off.
//!
//! Invariant: a directory that is in use, or that another opening has fenced off, is refused before
//! anything in it or in the database is changed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::disk::{append_on_a_thread, clear_up};
use super::engine::{Opened, open_spool};
use super::lanes::{Common, Started};
use super::tasks::Tasks;
use crate::accounts::board::Board;
use crate::accounts::ledger::connected_for;
use crate::accounts::status::Health;
use crate::accounts::verify::{StreamLedger, read_streams};
use crate::admission::record::streams;
use crate::clock;
use crate::config::replay::Replay;
use crate::drain_rate::DrainRate;
use crate::event::table::Table;
use crate::log::spool;
use crate::log::spool::recover::open::{
    Account, StreamAccount, account, history, inspect, refuse_in_use,
};
use crate::metrics::Metrics;
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::checks::server::{FirstContact, first_contact};
use crate::postgres::connect::Target;
use crate::postgres::migrate::{self, History};
use crate::postgres::session::Session;
use crate::writer::gather::BatchLimits;
use crate::writer::opening::Place;

/// Writers of each table. Lanes that have rows in the spool get one in any case.
const WRITERS: u8 = 1;

/// Partitions to make ahead of time: none. Rows get theirs as they come.
const AHEAD: u32 = 0;

/// How often to look how far the lanes are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a lane may wait for an operator, or for rows that do not come. It tries again every
/// five seconds.
const STUCK_MAX: Duration = Duration::from_secs(12);

/// How long no row may be stored for any other reason. Moving rows out of a DEFAULT partition
/// takes up to ten minutes.
const SILENCE_MAX: Duration = Duration::from_secs(12 * 60);

/// What became of the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub table: Table,
    /// Rows that were new in Postgres.
    pub stored: u64,
    /// Rows that were there already.
    pub duplicates: u64,
    /// Rows that were put into quarantine.
    pub quarantined: u64,
}

/// What the ledger says of a directory, and how many rows of it are not stored.
struct Found {
    ledger: Vec<StreamLedger>,
    waiting: u64,
    /// Rows that were accepted, and are neither there nor decided on.
    lost: i128,
    /// Segments that cannot be read at all.
    unreadable: Vec<String>,
}

/// Stores all that the directory holds and the ledger does not have. `progress` is told how many
/// rows are left.
///
/// # Errors
///
/// When the directory is in use or fenced off, holds no spool, or has lost rows; when Postgres
/// cannot be used or does not take the rows. What is not stored stays in the directory.
pub async fn run(settings: &Replay, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<Replayed>> {
    let target = settings.database.target()?;
    let found = look(settings, &target).await?;
    let nothing = |table| Replayed {
        table,
        stored: 0,
        duplicates: 0,
        quarantined: 0,
    };
    if found.waiting == 0 {
        whole(settings, found.lost, &found.unreadable)?;
        return Ok(Table::ALL.map(nothing).to_vec());
    }
    let lanes = store(settings, &target, progress, &found.unreadable).await?;
    let mut replayed = Table::ALL.map(nothing);
    for lane in &lanes.lanes {
        let before = found.ledger.iter();
        let mut before = before.filter(|before| u16::from(before.number) == lane.stream.number);
        let before = before.next().map(|before| before.totals);
        let (before, after) = (before.unwrap_or_default(), lane.totals());
        let table = &mut replayed[lane.stream.table as usize];
        table.stored += after.stored.saturating_sub(before.stored);
        table.duplicates += after.duplicates.saturating_sub(before.duplicates);
        table.quarantined += after.quarantined.saturating_sub(before.quarantined);
    }
    Ok(replayed.to_vec())
}

/// Fails if not all that was accepted is stored.
fn whole(settings: &Replay, lost: i128, unreadable: &[String]) -> Result<()> {
    let shown = settings.spool_dir.display();
    ensure!(
        lost <= 0,
        "all that can be read is stored, and {lost} rows that were accepted are not there: files of {shown} \
         are damaged or missing, or the database is another one or an older copy. \
         `recsys-ingest verify --spool-dir {shown}` names them"
    );
    ensure!(
        unreadable.is_empty(),
        "all that can be read is stored, and what is in {} of {shown} is not known: its header is damaged, or another file \
         is the same segment; keep it if something of it is to be saved",
        unreadable.join(", ")
    );
    Ok(())
}

/// Reads directory and ledger, and refuses what must not be stored from here.
async fn look(settings: &Replay, target: &Target) -> Result<Found> {
    let directory = settings.spool_dir.clone();
    let reading = tokio::task::spawn_blocking(move || read_directory(&directory));
    let (spool_id, known, unreadable) = reading.await.context("reading the spool broke off")??;
    let shown = settings.spool_dir.display();
    let mut session = Session::open(target, None).await?;
    if let History::Behind(_) = migrate::look(&session.client).await? {
        bail!("the schema is not up to date: run `recsys-ingest migrate` first");
    }
    let lineage = known.lineage();
    let ledger = read_streams(&mut session.client, spool_id, lineage).await?;
    if let Some(other) = ledger.iter().find(|stream| !known.knows(stream.opening)) {
        let holder = other.holder.as_ref();
        let holder = holder.map_or("an unknown process".to_owned(), ToString::to_string);
        bail!(
            "the spool in {shown} was fenced off by a later opening of a copy of it: {holder}. \
             Nothing was stored. That one has, or will store, what both hold; for what is in this \
             directory alone, run `recsys-ingest spool fork --spool-dir {shown}` and then this \
             command again: what is stored already counts as duplicate"
        );
    }
    let connected = connected_for(&session.client, spool_id, lineage).await;
    let connected = connected.context("cannot see whether the spool is in use")?;
    if let Some(backend) = connected.filter(|_| !settings.take_over) {
        let holder = ledger.iter().find_map(|stream| stream.holder.as_ref());
        let holder = holder.map_or("an unknown process".to_owned(), ToString::to_string);
        bail!(
            "the spool in {shown} is in use: {holder} is connected to PostgreSQL for it ({backend}). \
             Nothing was stored. Stop that process. If its machine is gone, PostgreSQL notices within half \
             a minute: run this command again then. --take-over fences it off while it runs"
        );
    }
    let watermarks: Vec<_> = ledger
        .iter()
        .map(|stream| (stream.number, stream.totals.watermark, stream.opening))
        .collect();
    let directory = settings.spool_dir.clone();
    let counting = tokio::task::spawn_blocking(move || account(&directory, spool_id, &watermarks));
    let Account { streams, .. } = counting.await.context("reading the spool broke off")??;
    let lost = |stream: &StreamAccount| {
        let mut entered = ledger.iter();
        let entered = entered.find(|entered| entered.number == stream.number);
        let decided = entered.map_or(0, |entered| entered.totals.decided());
        let lost = i128::from(stream.accepted) - i128::from(stream.unacked) - decided;
        lost.max(0)
    };
    Ok(Found {
        waiting: streams.iter().map(|stream| stream.unacked).sum(),
        lost: streams.iter().map(lost).sum(),
        ledger,
        unreadable,
    })
}

/// The spool in a directory, its openings, and the segments that cannot be read. Fails if a process
/// has it open.
fn read_directory(
    directory: &Path,
) -> Result<(Uuid, spool::recover::openings::History, Vec<String>)> {
    ensure!(
        directory.is_dir(),
        "there is no directory {}",
        directory.display()
    );
    let report = inspect(directory)?;
    let spool_id = report
        .spool_id
        .with_context(|| format!("there is no spool in {}", directory.display()))?;
    refuse_in_use(directory)?;
    let unreadable = report.unreadable.into_iter().map(|file| file.name);
    Ok((
        spool_id,
        history(directory, spool_id)?,
        unreadable.collect(),
    ))
}

/// Opens the spool and runs its lanes until nothing is left.
async fn store(
    settings: &Replay,
    target: &Target,
    progress: &(dyn Fn(u64) + Sync),
    unreadable: &[String],
) -> Result<Started> {
    let directory = &settings.spool_dir;
    let metrics = Arc::new(Metrics::new());
    let spool_settings = spool::settings::Settings {
        streams: streams(WRITERS),
        // Nothing is appended.
        disk_reserve_bytes: 0,
        bytes_max: u64::MAX,
        ..spool::settings::Settings::default()
    };
    let connections = u32::try_from(spool_settings.streams.len()).unwrap_or(u32::MAX);
    let FirstContact { refusal, .. } = first_contact(target, connections).await;
    if let Some(refusal) = refusal {
        bail!("this database cannot be used: {refusal}");
    }
    let checks = Arc::new(Board::new(Arc::clone(&metrics), clock::now, connections));
    // Lanes then wait for no migration.
    let session = Session::open(target, None).await?;
    checks.inspect(&session.client).await?;
    drop(session);
    let policy = super::build::partition_policy(&settings.partitioning, AHEAD);
    let maintainer = Arc::new(PartitionMaintainer::new(policy, Arc::clone(&metrics)));
    // The sender is dropped: the log ends after what is on disk.
    let (_, waiting) = flume::bounded(1);
    let Opened {
        capacity,
        appender,
        lanes,
        finish,
        ..
    } = open_spool(directory.clone(), spool_settings, waiting).await?;
    let fenced_off = Arc::new(AtomicBool::new(false));
    let limits = BatchLimits {
        rows_max: 20_000,
        bytes_max: 4 << 20,
        flush_after: Duration::ZERO,
        flush_waited_after: Duration::ZERO,
    };
    let common = Common {
        place: Place::here(directory),
        target: target.clone(),
        limits: Table::ALL.map(|_| limits),
        maintainer,
        drain: Arc::new(DrainRate::new(std::time::Instant::now())),
        metrics,
        checks,
        fenced_off: Arc::clone(&fenced_off),
        leave: CancellationToken::new(),
    };
    let mut stages = Tasks::default();
    let lanes = common.start(lanes, &mut stages);
    let committed = append_on_a_thread(appender)?;
    stages.spawn("the committing thread", async move {
        committed.await.expect("the committing thread panicked");
    });
    let left = || capacity.usage().items;
    let mut patience = Patience::new(left());
    let stuck = loop {
        tokio::select! {
            biased;
            () = stages.join() => break None,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        progress(left());
        if let Some(lane) = patience.ends(left(), &lanes) {
            break Some(lane);
        }
    };
    stages.abort(super::END_LIMIT).await;
    clear_up(finish).await;
    let (shown, rest) = (directory.display(), left());
    if let Some(fault) = stages.faults().into_iter().next() {
        bail!("{fault}; {rest} rows are left in {shown}");
    }
    ensure!(
        !fenced_off.load(Ordering::Relaxed),
        "fenced off by a later opening of this spool while it was stored, see the log; {rest} rows are left in {shown}"
    );
    if let Some(lane) = stuck {
        bail!(
            "{lane} cannot be stored, the log says why; {rest} rows are left in {shown}, and none is lost: \
             run this command again once that is mended"
        );
    }
    whole(settings, i128::from(capacity.usage().lost), unreadable)?;
    Ok(lanes)
}

/// How long the lanes have stored nothing.
struct Patience {
    left: u64,
    since: Instant,
}

impl Patience {
    fn new(left: u64) -> Self {
        Self {
            left,
            since: Instant::now(),
        }
    }

    /// The lane that nothing can be expected of any more.
    fn ends(&mut self, left: u64, lanes: &Started) -> Option<String> {
        if left != self.left {
            *self = Self::new(left);
        }
        let silence = self.since.elapsed();
        let running = lanes.writers.iter().zip(&lanes.lanes);
        let mut running = running.filter(|(writer, _)| !writer.is_finished());
        let (_, lane) = running.find(|(_, lane)| match lane.health() {
            Health::Fault | Health::Undecided => silence > STUCK_MAX,
            Health::Good | Health::SettingAside | Health::Away => silence > SILENCE_MAX,
        })?;
        let stream = lane.stream;
        Some(format!("{} lane {}", stream.table, stream.shard))
    }
}
