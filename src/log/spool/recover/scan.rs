//! What is on disk: read only, and told before anything is done about it.
//!
//! Keeps one invariant: a frame is reported only if its header and its payload
//! check out, and every byte that is neither a frame nor zero is reported too.
//! Changes nothing; [`super::repair`] does.

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

/// Where it does not matter what is settled.
const NOTHING_SETTLED: Counts = [0; STREAMS_MAX];

/// How far beyond the sequences in sound headers the name of a file without one
/// is believed: a million frames a second take nine years for that.
const BELIEVED_AHEAD: u64 = 1 << 48;

/// Reads all segments in the directory.
///
/// Fails if the disk cannot be read, or holds what another version or another
/// spool wrote: then guessing would lose events, and a person has to look.
pub(crate) fn scan(disk: &dyn Disk) -> anyhow::Result<ScanReport> {
    scan_beyond(disk, &NOTHING_SETTLED)
}

/// The same, telling apart what lies behind the given sequences, by stream.
pub(crate) fn scan_beyond(disk: &dyn Disk, settled: &Counts) -> anyhow::Result<ScanReport> {
    let mut report = ScanReport {
        instance: spool_id::read(disk)?,
        ..ScanReport::default()
    };
    let mut readable: Vec<(Listed, SegmentHeader)> = Vec::new();
    for file in disk.list().context("cannot list the spool directory")? {
        if spool_id::is_leftover(&file.name) {
            report.leftovers.push(file.name);
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
            // A file gets a segment's name once its header is synced, so this
            // one has lost it, even if there is nothing else to be seen in it.
            Err(reason) => report.unreadable.push(Unreadable {
                bytes: file.bytes,
                name: file.name,
                reason,
            }),
        }
    }
    check_instance(&mut report, &readable)?;
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
            .push(scan_segment(&file.name, &bytes, stated, settled)?);
    }
    guard(&mut report);
    report.gaps = gaps(&report.segments);
    Ok(report)
}

/// Sorts segments into the order in which they were begun. Of several with one
/// number, as a copy of a file makes, one is taken.
fn put_in_order(
    report: &mut ScanReport,
    readable: &mut Vec<(Listed, SegmentHeader)>,
) -> anyhow::Result<()> {
    // The one under its own name comes first.
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

/// The last sequence that files without a readable header can hold. A name that
/// is far beyond what the others say is no name of a segment.
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
        .map(|(file, named)| named.saturating_add(file.bytes / FRAME_HEADER_BYTES))
        .max()
        .unwrap_or(0)
}

/// Where headers count more items than the segments before them hold. These
/// items were settled and their segments deleted, or they are lost: the ledger
/// tells.
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

/// Scans one segment again, as it is now.
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

/// All segments are of one instance, and it is the one in the instance file.
fn check_instance(
    report: &mut ScanReport,
    readable: &[(Listed, SegmentHeader)],
) -> anyhow::Result<()> {
    let mut owner: Option<(Uuid, &str)> = report
        .instance
        .map(|instance| (instance, spool_id::FILE_NAME));
    for (file, header) in readable {
        match owner {
            None => owner = Some((header.instance, &file.name)),
            Some((instance, _)) if instance == header.instance => {}
            Some((instance, witness)) => bail!(
                "segment {} belongs to spool {}, but {witness} says that this is spool {instance}: \
                 move the segment to a directory of its own, and run a service on that to drain it",
                file.name,
                header.instance
            ),
        }
    }
    report.instance = owner.map(|(instance, _)| instance);
    Ok(())
}

/// A segment that says where bytes of the one before become void must outlive it.
fn guard(report: &mut ScanReport) {
    for at in 0..report.segments.len() {
        let Some(predecessor) = report.segments[at].header.predecessor else {
            continue;
        };
        let has_void = report
            .segments
            .iter()
            .any(|earlier| earlier.header.number == predecessor.number && earlier.void_bytes > 0);
        report.segments[at].guards = has_void.then_some(predecessor.number);
    }
}

/// Reads the first bytes of a segment, at most so many.
fn read_file(disk: &dyn Disk, file: &Listed, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let name = &file.name;
    if file.bytes > SEGMENT_BYTES_MAX {
        bail!(
            "segment {name} has {} bytes, more than a segment can have: move it away if it is none",
            file.bytes
        );
    }
    let handle = disk
        .open(name)
        .with_context(|| format!("cannot open segment {name}"))?;
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
