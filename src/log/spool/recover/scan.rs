//! Reads what is on disk; the findings are logged before anything is repaired.
//!
//! Invariant: a record is reported only if its header and its payload are sound, and every byte
//! that is neither in a record nor zero is reported as well. Changes nothing; [`super::repair`]
//! does.

pub(crate) mod report;
pub(crate) mod segment;

use anyhow::{Context, bail};
use uuid::Uuid;

use segment::scan_segment;

use report::Gap;
use report::{ScanReport, SegmentReport, Unreadable};

use crate::log::spool::disk::{Disk, Listed, read_full};
use crate::log::spool::format::{
    Counts, FRAME_HEADER_BYTES, FRAMES_START, HeaderError, NUMBER_MAX, Predecessor,
    SEGMENT_BYTES_MAX, STREAMS_MAX, SegmentHeader, first_sequence_in_name, segment_name, to_usize,
};
use crate::log::spool::spool_id;

/// For scans that do not ask which records are acked.
const NOTHING_SETTLED: Counts = [0; STREAMS_MAX];

/// How far a file's name may be ahead of the sequences in sound headers. A million records a
/// second take nine years for that.
const BELIEVED_AHEAD: u64 = 1 << 48;

/// Reads all segments in the directory.
///
/// Fails if the disk cannot be read, or holds what another version or another spool wrote. To
/// guess would lose events there, so a person has to look.
pub(crate) fn scan(disk: &dyn Disk) -> anyhow::Result<ScanReport> {
    scan_beyond(disk, &NOTHING_SETTLED)
}

/// Like [`scan`]; also counts the items after the given sequence of each stream.
pub(crate) fn scan_beyond(disk: &dyn Disk, acked: &Counts) -> anyhow::Result<ScanReport> {
    let mut report = ScanReport {
        spool_id: spool_id::read(disk)?,
        ..ScanReport::default()
    };
    let mut readable: Vec<(Listed, SegmentHeader)> = Vec::new();
    for file in disk.list().context("cannot list the spool directory")? {
        if spool_id::is_leftover(&file.name) {
            report.leftovers.push(file.name);
            continue;
        }
        if file.name == spool_id::UNUSED {
            report.is_unused = true;
            continue;
        }
        if first_sequence_in_name(&file.name).is_none() {
            continue;
        }
        match SegmentHeader::decode(&read_file(disk, &file, FRAMES_START)?) {
            Ok((header, _)) => readable.push((file, header)),
            Err(HeaderError::Version(version)) => bail!(
                "segment {} has format version {version}, which this program cannot read: \
                 start the version that wrote it and let it drain the spool first",
                file.name
            ),
            // A file gets a segment's name after its header is synced. So this one has lost its
            // header, even if it holds nothing else.
            Err(reason) => report.unreadable.push(Unreadable {
                bytes: file.bytes,
                name: file.name,
                reason,
            }),
        }
    }
    check_spool_id(&mut report, &readable)?;
    put_in_order(&mut report, &mut readable)?;
    report.last_sequence_at_most = last_sequence_at_most(&report.unreadable, &readable);
    for (file, header) in &readable {
        let stated = readable
            .iter()
            .filter_map(|(_, later)| later.predecessor)
            .find(|predecessor| predecessor.number == header.number);
        let bytes = read_file(disk, file, file.bytes)?;
        report
            .segments
            .push(scan_segment(&file.name, &bytes, stated, acked)?);
    }
    guard(&mut report);
    report.gaps = gaps(&report.segments);
    Ok(report)
}

/// Sorts segments by number, the order in which they were created. Keeps one of several with
/// the same number, which a copied file makes.
fn put_in_order(
    report: &mut ScanReport,
    readable: &mut Vec<(Listed, SegmentHeader)>,
) -> anyhow::Result<()> {
    // The file named as its header says comes first.
    readable.sort_by_key(|(file, header)| {
        let is_renamed = file.name != segment_name(header.first_sequence);
        (header.number, is_renamed, file.name.clone())
    });
    let mut taken: Option<u64> = None;
    readable.retain(|(file, header)| {
        let is_new = taken.replace(header.number) != Some(header.number);
        if !is_new {
            report.unreadable.push(Unreadable {
                bytes: file.bytes,
                name: file.name.clone(),
                reason: HeaderError::Copied,
            });
        }
        is_new
    });
    for pair in readable.windows(2) {
        let [(before, earlier), (after, later)] = pair else {
            continue;
        };
        if later.first_sequence <= earlier.first_sequence {
            bail!(
                "segments {} and {} do not belong to one spool: the second was begun later by its \
                 number and earlier by its sequence; move the one away that was put there",
                before.name,
                after.name
            );
        }
    }
    Ok(())
}

/// An upper bound on the sequences in files without a readable header. A name far ahead of the
/// sound headers is not a segment's.
fn last_sequence_at_most(unreadable: &[Unreadable], readable: &[(Listed, SegmentHeader)]) -> u64 {
    let known = readable
        .iter()
        .map(|(_, header)| header.first_sequence)
        .max()
        .unwrap_or(0);
    unreadable
        .iter()
        .filter_map(|file| Some((file, first_sequence_in_name(&file.name)?)))
        .filter(|&(_, named)| named <= known.saturating_add(BELIEVED_AHEAD).min(NUMBER_MAX))
        .map(|(file, named)| {
            let frames = file.bytes.min(SEGMENT_BYTES_MAX) / FRAME_HEADER_BYTES;
            named.saturating_add(frames)
        })
        .max()
        .unwrap_or(0)
}

/// Finds where a header counts more items than the segments before it hold. Those items were
/// acked and their segments deleted, or they are lost: the ledger decides.
fn gaps(segments: &[SegmentReport]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut reached: Counts = [0; STREAMS_MAX];
    let mut after = None;
    for segment in segments {
        let header = &segment.header;
        let items: Counts =
            std::array::from_fn(|stream| header.counts[stream].saturating_sub(reached[stream]));
        if items != [0; STREAMS_MAX] {
            gaps.push(Gap {
                after: after.clone(),
                before: segment.name.clone(),
                next_sequence: header.first_sequence,
                items,
            });
        }
        reached = segment.counts;
        after = Some(segment.name.clone());
    }
    gaps
}

/// Scans one segment again, up to its stated end.
pub(crate) fn rescan(
    disk: &dyn Disk,
    name: &str,
    stated: Predecessor,
) -> anyhow::Result<SegmentReport> {
    let bytes = stated.end;
    let listed = Listed {
        name: name.to_owned(),
        bytes,
    };
    let bytes = read_file(disk, &listed, listed.bytes)?;
    scan_segment(name, &bytes, Some(stated), &NOTHING_SETTLED)
}

/// Checks that all segments have one spool id, and that it is the one in the spool id's file.
fn check_spool_id(
    report: &mut ScanReport,
    readable: &[(Listed, SegmentHeader)],
) -> anyhow::Result<()> {
    let mut owner: Option<(Uuid, &str)> = report
        .spool_id
        .map(|spool_id| (spool_id, spool_id::FILE_NAME));
    for (file, header) in readable {
        match owner {
            None => owner = Some((header.spool_id, &file.name)),
            Some((spool_id, _)) if spool_id == header.spool_id => {}
            Some((spool_id, witness)) => bail!(
                "segment {} belongs to spool {}, but {witness} says that this is spool {spool_id}: \
                 move the segment to a directory of its own, and run a service on that to drain it",
                file.name,
                header.spool_id
            ),
        }
    }
    report.spool_id = owner.map(|(spool_id, _)| spool_id);
    Ok(())
}

/// A segment that declares the tail of the one before it discarded must not be deleted first.
fn guard(report: &mut ScanReport) {
    for at in 0..report.segments.len() {
        let Some(predecessor) = report.segments[at].header.predecessor else {
            continue;
        };
        let has_discarded_tail = report
            .segments
            .iter()
            .any(|earlier| earlier.header.number == predecessor.number && earlier.tail_bytes > 0);
        report.segments[at].guards = has_discarded_tail.then_some(predecessor.number);
    }
}

/// Reads at most the first `bytes_max` bytes of a segment. What is behind the largest segment is
/// not the spool's, and is not read.
fn read_file(disk: &dyn Disk, file: &Listed, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let name = &file.name;
    let handle = disk
        .open(name)
        .with_context(|| format!("cannot open segment {name}"))?;
    let bytes_max = bytes_max.min(SEGMENT_BYTES_MAX);
    let mut bytes = vec![0; to_usize(file.bytes.min(bytes_max))];
    let read = read_full(handle.as_ref(), &mut bytes, 0).with_context(|| {
        format!(
            "cannot read segment {name}: if the disk is broken, copy what can be copied to \
             another one and start again there"
        )
    })?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
