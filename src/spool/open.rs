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
use super::reader::LaneReader;
use super::scan::{ScanReport, scan};
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
        readers.push(LaneReader::new(stream, Arc::clone(&shared), lane, receiver));
    }
    let log = Log::new(Arc::clone(&shared), resume);
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
        let lost = segment.lost_items.iter().sum();
        shared.gauges.lost.fetch_add(lost, Ordering::Relaxed);
    }
}
