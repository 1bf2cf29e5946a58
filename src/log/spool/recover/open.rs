//! Opens a spool: lock, scan, log the findings, repair, continue after the last record.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use uuid::Uuid;

use super::openings::{self, History, Vouched};
use super::repair;
use super::scan::report::ScanReport;
use super::scan::{scan, scan_beyond};
use crate::log::record::Record;
use crate::log::spool::append::appender::{Appender, Closed, Resume};
use crate::log::spool::append::group_committer::GroupCommitter;
use crate::log::spool::catalog::{Catalog, Segment};
use crate::log::spool::deliver::lag::Lag;
use crate::log::spool::deliver::lane::{Lane, LaneSender};
use crate::log::spool::deliver::reader::LaneReader;
use crate::log::spool::deliver::reader::found::Found;
use crate::log::spool::directory_lock::DirectoryLock;
use crate::log::spool::disk::Disk;
use crate::log::spool::disk::real::RealDisk;
use crate::log::spool::format::{Counts, Predecessor, STREAMS_MAX};
use crate::log::spool::settings::Settings;
use crate::log::spool::shared;
use crate::log::spool::shared::{Shared, Spool};

/// An open spool.
#[derive(Debug)]
pub struct Opened<L, R> {
    /// The handle; clones go to all users.
    pub spool: Spool,
    /// Runs on a dedicated thread.
    pub committer: GroupCommitter<L, R>,
    /// One for each stream, in order of their numbers. Earlier settings may have had more
    /// streams: those with records left get a reader too.
    pub readers: Vec<LaneReader<L, R>>,
    /// What the scan found on disk.
    pub report: ScanReport,
}

/// Opens the spool in `directory`, which is created if it does not exist. Records come through
/// `entries`, which should be bounded.
///
/// Nothing is delivered, and nothing but the lock file is written, before everything on disk is
/// read. The findings are logged before anything is repaired.
pub fn open<L, R>(
    directory: &Path,
    settings: Settings,
    entries: flume::Receiver<Record<L, R>>,
) -> anyhow::Result<Opened<L, R>> {
    let doing = || format!("cannot open the spool in {}", directory.display());
    let disk = RealDisk::open(directory).with_context(doing)?;
    let lock = DirectoryLock::acquire(directory)?;
    open_on(Arc::new(disk), Some(lock), settings, entries).with_context(doing)
}

/// Fails if a process has the spool in `directory` open.
pub fn refuse_in_use(directory: &Path) -> anyhow::Result<()> {
    DirectoryLock::acquire(directory).map(drop)
}

/// Scans a spool's directory and changes nothing. While a service has it open, the end of the
/// newest segment may look torn.
pub fn inspect(directory: &Path) -> anyhow::Result<ScanReport> {
    let doing = || format!("cannot read the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    scan(&disk).with_context(doing)
}

/// The recorded openings of the directory of spool `spool_id`.
pub fn history(directory: &Path, spool_id: Uuid) -> anyhow::Result<History> {
    let doing = || format!("cannot read the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    recorded(&disk, spool_id, true).with_context(doing)
}

/// The recorded openings. `used`: the directory holds records.
fn recorded(disk: &dyn Disk, spool_id: Uuid, used: bool) -> anyhow::Result<History> {
    let recorded = openings::read(disk, spool_id)?;
    Ok(recorded.unwrap_or_else(|| History::unrecorded(spool_id, used)))
}

/// Item counts of one stream in a spool's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAccount {
    pub number: u8,
    /// Items that were made durable under this spool id.
    pub accepted: u64,
    /// Items of records after the committed sequence.
    pub unacked: u64,
}

/// Item counts of all streams in a spool's directory.
#[derive(Clone, Debug)]
pub struct Account {
    /// The openings of the directory.
    pub history: History,
    /// Every stream that was ever used.
    pub streams: Vec<StreamAccount>,
}

/// A stream, the watermark that the database has for it, and the opening that set it.
pub type Watermark = (u8, u64, Option<Uuid>);

/// Counts the items of every stream that was ever used. Records that `watermarks` vouch for are
/// acked. Changes nothing, and may run while a service has the directory open. Fails if the
/// directory does not hold the spool `spool_id`.
pub fn account(
    directory: &Path,
    spool_id: Uuid,
    watermarks: &[Watermark],
) -> anyhow::Result<Account> {
    let doing = || format!("cannot read the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    account_on(&disk, spool_id, watermarks).with_context(doing)
}

fn account_on(
    disk: &dyn Disk,
    spool_id: Uuid,
    watermarks: &[Watermark],
) -> anyhow::Result<Account> {
    let history = recorded(disk, spool_id, true)?;
    let mut beyond = [0; STREAMS_MAX];
    for &(stream, watermark, by) in watermarks {
        if let Some(acked) = beyond.get_mut(usize::from(stream)) {
            *acked = match history.vouched(by, watermark) {
                Vouched::UpToWatermark => watermark,
                Vouched::UpTo { sequence, .. } => sequence,
                Vouched::Nothing => 0,
            };
        }
    }
    let report = scan_beyond(disk, &beyond)?;
    anyhow::ensure!(
        report.spool_id == Some(spool_id),
        "it is not spool {spool_id} any more"
    );
    let accepted = report
        .segments
        .last()
        .map_or([0; STREAMS_MAX], |newest| newest.counts);
    let account = |stream: usize| StreamAccount {
        number: u8::try_from(stream).expect("there are fewer than 256 streams"),
        accepted: accepted[stream],
        unacked: report.segments.iter().fold(0, |sum: u64, segment| {
            sum.saturating_add(segment.streams[stream].unacked)
        }),
    };
    let streams = (0..STREAMS_MAX)
        .map(account)
        .filter(|account| account.accepted > 0)
        .collect();
    Ok(Account { history, streams })
}

/// Turns a directory that began as a copy into an independent spool, with a separate account in
/// the database; returns its lineage. Fails while a process has the directory open.
pub fn fork(directory: &Path) -> anyhow::Result<Uuid> {
    let doing = || format!("cannot fork the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    let _lock = DirectoryLock::acquire(directory)?;
    fork_on(&disk).with_context(doing)
}

fn fork_on(disk: &dyn Disk) -> anyhow::Result<Uuid> {
    let report = scan(disk)?;
    let spool_id = report
        .spool_id
        .filter(|_| !report.segments.is_empty())
        .context("there is no spool")?;
    repair::clear(disk, &report)?;
    let Account { history, streams } = account_on(disk, spool_id, &[])?;
    let mut inherited = [0; STREAMS_MAX];
    for StreamAccount {
        number,
        accepted,
        unacked,
    } in streams
    {
        inherited[usize::from(number)] = accepted.saturating_sub(unacked);
    }
    let history = history.fork(inherited);
    openings::write(disk, &history).context("cannot write the spool's record of openings")?;
    Ok(history.lineage())
}

pub(crate) fn open_on<L, R>(
    disk: Arc<dyn Disk>,
    lock: Option<DirectoryLock>,
    settings: Settings,
    entries: flume::Receiver<Record<L, R>>,
) -> anyhow::Result<Opened<L, R>> {
    settings.check()?;
    let report = scan(disk.as_ref())?;
    report.log();
    let spool_id = repair::repair(disk.as_ref(), &report)?;
    let mut resume = resume(&report);
    let history = begin(disk.as_ref(), spool_id, &report, &mut resume)?;
    let accepted = resume.counts;
    let mut catalog = Catalog::default();
    for segment in &report.segments {
        catalog.insert(segment.header.number, Segment::found(segment));
    }
    let backlogs: Vec<_> = (0..STREAMS_MAX)
        .map(|stream| catalog.backlog(stream))
        .collect();
    let shared = Arc::new(Shared::new(shared::Found {
        spool_id,
        settings,
        disk,
        catalog,
        counts: resume.counts,
        items: items(&report),
        last_sequence: resume.next_sequence - 1,
        history,
        lock,
    }));
    count_backlog(&shared, &report);
    let configured = &shared.settings.streams;
    let is_configured = |stream| configured.iter().any(|&one| usize::from(one) == stream);
    let (mut senders, mut readers) = (Vec::with_capacity(STREAMS_MAX), Vec::new());
    for (stream, backlog) in backlogs.into_iter().enumerate() {
        if backlog.is_none() && !is_configured(stream) {
            senders.push(None);
            continue;
        }
        let lag = match backlog {
            Some((from, last)) => Lag::on_disk(from, last),
            None => Lag::in_memory(),
        };
        let lane = Arc::new(Lane::new(lag));
        let (sender, receiver) = flume::bounded(shared.settings.lane_frames_max);
        let bytes_max = shared.settings.lane_bytes_max;
        senders.push(Some(LaneSender::new(
            stream,
            Arc::clone(&lane),
            sender,
            bytes_max,
        )));
        let found = Found::of(&report, stream, accepted[stream]);
        readers.push(LaneReader::new(
            stream,
            Arc::clone(&shared),
            lane,
            receiver,
            found,
        ));
    }
    let mut log = Appender::new(Arc::clone(&shared), resume);
    log.look_for_space();
    Ok(Opened {
        committer: GroupCommitter::new(Arc::clone(&shared), entries, senders, log),
        spool: Spool::new(shared),
        readers,
        report,
    })
}

/// Where the log continues: in a new segment, after every sequence that was ever seen.
fn resume(report: &ScanReport) -> Resume {
    let newest = report.segments.last();
    let seen = report
        .segments
        .iter()
        .map(|segment| segment.last_sequence.max(segment.header.first_sequence))
        .max()
        .unwrap_or(0)
        .max(report.last_sequence_at_most);
    Resume {
        closed: newest.map(|newest| Closed {
            predecessor: Predecessor {
                number: newest.header.number,
                end: newest.end,
                // The last group may not be synced.
                whole: false,
            },
            has_discarded_tail: newest.tail_bytes > 0,
        }),
        next_number: newest.map_or(1, |newest| newest.header.number + 1),
        next_sequence: seen + 1,
        counts: newest.map_or([0; STREAMS_MAX], |newest| newest.counts),
    }
}

/// Records that this directory is being opened, before the database can see the opening.
fn begin(
    disk: &dyn Disk,
    spool_id: Uuid,
    report: &ScanReport,
    resume: &mut Resume,
) -> anyhow::Result<History> {
    let used = !report.segments.is_empty();
    let mut history = recorded(disk, spool_id, used)?;
    let oldest = report
        .segments
        .iter()
        .map(|segment| segment.header.first_sequence)
        .min();
    resume.next_sequence = history.begin(resume.next_sequence, resume.counts, oldest);
    openings::write(disk, &history).context("cannot record that the spool is being opened")?;
    Ok(history)
}

/// Items of all records that were found, by stream.
fn items(report: &ScanReport) -> Counts {
    let of = |stream: usize| {
        let segments = report.segments.iter();
        segments.map(|segment| segment.streams[stream].items).sum()
    };
    std::array::from_fn(of)
}

fn count_backlog(shared: &Shared, report: &ScanReport) {
    for segment in &report.segments {
        for (stream, portion) in segment.streams.iter().enumerate() {
            shared.usage.add(stream, portion.frames, portion.items);
        }
        for (lost, items) in shared.usage.found_lost.iter().zip(segment.lost_items) {
            lost.fetch_add(items, Ordering::Relaxed);
        }
    }
}
