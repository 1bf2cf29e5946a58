//! Opening a spool: lock, look, tell, repair, then go on where it ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;

use super::catalog::{Catalog, Segment};
use super::commit::Committer;
use super::disk::{Disk, RealDisk};
use super::entry::Entry;
use super::format::{Predecessor, STREAMS_MAX};
use super::lane::{Lane, LaneSender};
use super::lock::DirectoryLock;
use super::log::{Closed, Log, Resume};
use super::pace::Pace;
use super::reader::{Found, LaneReader};
use super::scan::{ScanReport, scan, scan_beyond};
use super::settings::Settings;
use super::shared::{Shared, Spool};
use super::{repair, shared};

/// A spool, open.
#[derive(Debug)]
pub struct Opened<L, R> {
    /// For everyone.
    pub spool: Spool,
    /// For a thread of its own.
    pub committer: Committer<L, R>,
    /// One to each stream, by number. There are more than were asked for if
    /// earlier settings had more streams and frames of theirs are left.
    pub readers: Vec<LaneReader<L, R>>,
    /// What was found on disk.
    pub report: ScanReport,
}

/// Opens the spool in `directory`, which is made if it is not there. Entries
/// come through `entries`, which should be bounded.
///
/// Nothing is given or written before everything on disk was read; what was
/// found is logged before anything is done about it.
pub fn open<L, R>(
    directory: &Path,
    settings: Settings,
    entries: flume::Receiver<Entry<L, R>>,
) -> anyhow::Result<Opened<L, R>> {
    let doing = || format!("cannot open the spool in {}", directory.display());
    let disk = RealDisk::open(directory).with_context(doing)?;
    let lock = DirectoryLock::acquire(directory)?;
    open_on(Arc::new(disk), Some(lock), settings, entries).with_context(doing)
}

/// Reads what is in a spool's directory and changes nothing. While a service
/// runs there, the end of the newest segment may look torn.
pub fn inspect(directory: &Path) -> anyhow::Result<ScanReport> {
    let doing = || format!("cannot read the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    scan(&disk).with_context(doing)
}

/// What a spool's directory says of the items of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAccount {
    /// The stream.
    pub number: u8,
    /// Items that were made durable since the instance was born.
    pub accepted: u64,
    /// Items of frames behind the settled ones.
    pub unsettled: u64,
}

/// Reads what a spool's directory says of every stream that was ever used.
/// `settled` holds streams and the last of their sequences that is settled.
/// Changes nothing, and may run beside the service.
pub fn account(directory: &Path, settled: &[(u8, u64)]) -> anyhow::Result<Vec<StreamAccount>> {
    let doing = || format!("cannot read the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    let mut beyond = [0; STREAMS_MAX];
    for &(stream, sequence) in settled {
        if let Some(settled) = beyond.get_mut(usize::from(stream)) {
            *settled = sequence;
        }
    }
    let report = scan_beyond(&disk, &beyond).with_context(doing)?;
    let accepted = report
        .segments
        .last()
        .map_or([0; STREAMS_MAX], |newest| newest.counts);
    let account = |stream: usize| StreamAccount {
        number: u8::try_from(stream).expect("there are fewer than 256 streams"),
        accepted: accepted[stream],
        unsettled: report.segments.iter().fold(0, |sum: u64, segment| {
            sum.saturating_add(segment.streams[stream].unsettled)
        }),
    };
    Ok((0..STREAMS_MAX)
        .map(account)
        .filter(|account| account.accepted > 0)
        .collect())
}

pub(super) fn open_on<L, R>(
    disk: Arc<dyn Disk>,
    lock: Option<DirectoryLock>,
    settings: Settings,
    entries: flume::Receiver<Entry<L, R>>,
) -> anyhow::Result<Opened<L, R>> {
    settings.check()?;
    let report = scan(disk.as_ref())?;
    report.log();
    let instance = repair::repair(disk.as_ref(), &report)?;
    let resume = resume(&report);
    let accepted = resume.counts;
    let mut catalog = Catalog::default();
    for segment in &report.segments {
        catalog.insert(segment.header.number, Segment::found(segment));
    }
    let backlogs: Vec<_> = (0..STREAMS_MAX)
        .map(|stream| catalog.backlog(stream))
        .collect();
    let found_streams = backlogs
        .iter()
        .rposition(Option::is_some)
        .map_or(0, |last| last + 1);
    let shared = Arc::new(Shared::new(shared::Found {
        instance,
        settings,
        disk,
        catalog,
        counts: resume.counts,
        last_sequence: resume.next_sequence - 1,
        lock,
    }));
    count_backlog(&shared, &report);
    let streams = found_streams.max(usize::from(shared.settings.streams));
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for (stream, backlog) in backlogs.into_iter().enumerate().take(streams) {
        let pace = match backlog {
            Some((from, last)) => Pace::behind(from, last),
            None => Pace::caught_up(),
        };
        let lane = Arc::new(Lane::new(pace));
        let (sender, receiver) = flume::bounded(shared.settings.lane_frames_max);
        let bytes_max = shared.settings.lane_bytes_max;
        senders.push(LaneSender::new(
            stream,
            Arc::clone(&lane),
            sender,
            bytes_max,
        ));
        let found = Found::of(&report, stream, accepted[stream]);
        readers.push(LaneReader::new(
            stream,
            Arc::clone(&shared),
            lane,
            receiver,
            found,
        ));
    }
    let mut log = Log::new(Arc::clone(&shared), resume);
    log.look_for_space();
    Ok(Opened {
        committer: Committer::new(Arc::clone(&shared), entries, senders, log),
        spool: Spool::new(shared),
        readers,
        report,
    })
}

/// Where the log goes on: always in a fresh segment, beyond every sequence
/// that was ever seen.
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
                // Whether its last group was ever synced, nobody knows.
                whole: false,
            },
            has_void: newest.void_bytes > 0,
        }),
        next_number: newest.map_or(1, |newest| newest.header.number + 1),
        next_sequence: seen + 1,
        counts: newest.map_or([0; STREAMS_MAX], |newest| newest.counts),
    }
}

fn count_backlog(shared: &Shared, report: &ScanReport) {
    for segment in &report.segments {
        for (stream, portion) in segment.streams.iter().enumerate() {
            shared.gauges.add(stream, portion.frames, portion.items);
        }
        for (lost, items) in shared.gauges.found_lost.iter().zip(segment.lost_items) {
            lost.fetch_add(items, Ordering::Relaxed);
        }
    }
}
