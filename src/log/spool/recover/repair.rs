//! Repairs what a scan has found, after the findings are logged.
//!
//! Invariant: no byte that could be part of an event is destroyed. A torn tail stays where it
//! is; the header of the next segment declares it discarded.

use anyhow::Context;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::scan::report::{Damage, ScanReport, Unreadable};
use crate::log::spool::disk::{Disk, read_full, write_all};
use crate::log::spool::format::to_usize;
use crate::log::spool::spool_id;
use crate::log::spool::spool_id::LEFTOVER_SUFFIX;

/// Removes leftovers, renames what cannot be read, copies what is damaged; returns the spool id
/// that holds from now on.
pub(crate) fn repair(disk: &dyn Disk, report: &ScanReport) -> anyhow::Result<Uuid> {
    clear(disk, report)?;
    for Unreadable { name, .. } in &report.unreadable {
        set_aside(disk, name)
            .with_context(|| format!("cannot set the damaged segment {name} aside"))?;
    }
    for segment in &report.segments {
        for damage in &segment.damage {
            copy_damage(disk, &segment.name, damage)?;
        }
    }
    disk.sync_dir().context("cannot sync the spool directory")?;
    match report.spool_id {
        Some(spool_id) if !report.segments.is_empty() => {
            let named = spool_id::read(disk)?;
            if named.is_none() {
                spool_id::write(disk, spool_id)
                    .context("cannot write the spool's instance file")?;
            }
            if report.is_unused {
                // A version that does not know the mark has begun segments.
                spool_id::mark_used(disk).context("cannot remove a mark from the spool")?;
            }
            Ok(spool_id)
        }
        previous => {
            let spool_id = Uuid::new_v4();
            if let Some(previous) = previous
                && report.has_lost_its_segments()
            {
                // Before the mark is written, which silences the next start.
                warn!(%previous, %spool_id, "the spool directory holds no segment: it becomes a new spool; if segments were removed, what was in them and not stored yet is lost, and nothing tells how much");
            }
            if !report.is_unused {
                spool_id::mark_unused(disk).context("cannot mark the spool as unused")?;
            }
            spool_id::write(disk, spool_id).context("cannot write the spool's instance file")?;
            Ok(spool_id)
        }
    }
}

/// Renames a file so that it is no longer a segment. Replaces no other file.
fn set_aside(disk: &dyn Disk, name: &str) -> anyhow::Result<()> {
    let taken = disk.list()?;
    let is_free = |aside: &String| taken.iter().all(|file| file.name != *aside);
    let aside = std::iter::once(format!("{name}.damaged"))
        .chain((2_u64..).map(|n| format!("{name}.damaged-{n}")))
        .find(is_free)
        .expect("a directory holds fewer files than there are numbers");
    Ok(disk.rename(name, &aside)?)
}

/// Removes files that a crash left incomplete, and recycled segments.
pub(crate) fn clear(disk: &dyn Disk, report: &ScanReport) -> anyhow::Result<()> {
    for leftover in &report.leftovers {
        disk.remove(leftover)
            .with_context(|| format!("cannot remove the unused file {leftover} from the spool"))?;
        info!(file = %leftover, "removed a spool file that was not, or no longer, a segment");
    }
    Ok(())
}

/// Copies damaged bytes to a separate file, which outlives the segment.
pub(crate) fn copy_damage(disk: &dyn Disk, segment: &str, damage: &Damage) -> anyhow::Result<()> {
    let stem = segment.strip_suffix(".seg").unwrap_or(segment);
    let copy = format!("damaged-{stem}-{}.bin", damage.offset);
    let doing = || format!("cannot copy damaged bytes of segment {segment} to {copy}");
    let known = disk.list().with_context(doing)?;
    if known.iter().any(|file| file.name == copy) {
        return Ok(()); // An earlier start copied it.
    }
    let mut bytes = vec![0; to_usize(damage.bytes)];
    let source = disk.open(segment).with_context(doing)?;
    let read = read_full(source.as_ref(), &mut bytes, damage.offset).with_context(doing)?;
    // A copy is complete once it has its final name.
    let unfinished = format!("{copy}{LEFTOVER_SUFFIX}");
    let file = disk.create(&unfinished, 0).with_context(doing)?;
    write_all(file.as_ref(), &bytes[..read], 0).with_context(doing)?;
    file.sync_data().with_context(doing)?;
    disk.rename(&unfinished, &copy).with_context(doing)?;
    error!(%segment, offset = damage.offset, bytes = damage.bytes, %copy, "copied damaged bytes of the spool");
    Ok(())
}
