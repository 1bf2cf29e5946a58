//! What is on disk: read only, and told before anything is done about it.
//!
//! Keeps one invariant: a frame is reported only if its header and its payload
//! check out, and every byte that is neither a frame nor zero is reported too.
//! Changes nothing; [`super::repair`] does.

mod report;
mod segment;

use anyhow::{Context, bail};
use uuid::Uuid;

pub(super) use segment::{Portion, scan_segment};

pub use report::{Damage, DamageKind, Ending, ScanReport, SegmentReport, Unreadable};

use super::disk::{Disk, Listed, read_full};
use super::format::{
    FRAME_HEADER_BYTES, FRAMES_START, HeaderError, Predecessor, SEGMENT_BYTES_MAX, SegmentHeader,
    first_sequence_in_name, to_usize,
};
use super::instance;

/// Reads all segments in the directory.
///
/// Fails if the disk cannot be read, or holds what another version or another
/// spool wrote: then guessing would lose events, and a person has to look.
pub(super) fn scan(disk: &dyn Disk) -> anyhow::Result<ScanReport> {
    let mut report = ScanReport {
        instance: instance::read(disk)?,
        ..ScanReport::default()
    };
    let mut readable: Vec<(Listed, SegmentHeader)> = Vec::new();
    for file in disk.list().context("cannot list the spool directory")? {
        if instance::is_leftover(&file.name) {
            report.leftovers.push(file.name);
            continue;
        }
        let Some(named) = first_sequence_in_name(&file.name) else {
            continue;
        };
        match SegmentHeader::decode(&read_file(disk, &file, FRAMES_START)?) {
            Ok((header, _)) => readable.push((file, header)),
            Err(HeaderError::Version(version)) => bail!(
                "segment {} has format version {version}, which this program cannot read: \
                 start the version that wrote it and let it drain the spool first",
                file.name
            ),
            Err(reason @ HeaderError::Damaged) => {
                let frames_at_most = file.bytes / FRAME_HEADER_BYTES;
                report.last_sequence_at_most = report
                    .last_sequence_at_most
                    .max(named.saturating_add(frames_at_most));
                let bytes = read_file(disk, &file, file.bytes)?;
                // The header is synced before the first frame is written: where
                // there is no frame, nobody was promised anything.
                if trimmed(&bytes) <= to_usize(FRAMES_START) {
                    report.leftovers.push(file.name);
                } else {
                    report.unreadable.push(Unreadable {
                        bytes: file.bytes,
                        name: file.name,
                        reason,
                    });
                }
            }
        }
    }
    check_instance(&mut report, &readable)?;
    readable.sort_by_key(|(_, header)| header.number);
    for (file, header) in &readable {
        let stated = readable
            .iter()
            .filter_map(|(_, later)| later.predecessor)
            .find(|predecessor| predecessor.number == header.number);
        let bytes = read_file(disk, file, file.bytes)?;
        report
            .segments
            .push(scan_segment(&file.name, &bytes, stated)?);
    }
    guard(&mut report);
    Ok(report)
}

/// Scans one segment again, as it is now.
pub(super) fn rescan(
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
    scan_segment(name, &bytes, Some(stated))
}

/// Length without the zeros at the end.
pub(super) fn trimmed(bytes: &[u8]) -> usize {
    // Most of a file that was set aside is zeros: compare them by the page.
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end >= ZEROS.len() && bytes[end - ZEROS.len()..end] == ZEROS {
        end -= ZEROS.len();
    }
    bytes[..end]
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

/// All segments are of one instance, and it is the one in the instance file.
fn check_instance(
    report: &mut ScanReport,
    readable: &[(Listed, SegmentHeader)],
) -> anyhow::Result<()> {
    let mut owner: Option<(Uuid, &str)> = report
        .instance
        .map(|instance| (instance, instance::FILE_NAME));
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
