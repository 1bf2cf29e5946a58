//! A glance at a spool's directory, for operators: how much is in it, how old it is, how much room
//! its disk has. Changes nothing, and may run while a service has the directory open.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;

use super::scan::report::ScanReport;
use super::scan::scan;
use crate::log::spool::disk::Disk as _;
use crate::log::spool::disk::real::RealDisk;

/// What a directory holds.
#[derive(Clone, Debug)]
pub struct Glance {
    /// What a scan found.
    pub report: ScanReport,
    /// Bytes of the segments.
    pub bytes: u64,
    /// When the oldest segment was last written to: its records are at least as old.
    pub oldest: Option<SystemTime>,
    /// Bytes of the file system that may still be allocated.
    pub free_bytes: u64,
}

/// Glances at a directory.
///
/// # Errors
///
/// When it is not there, or cannot be read.
pub fn glance(directory: &Path) -> anyhow::Result<Glance> {
    let doing = || format!("cannot read the spool in {}", directory.display());
    let disk = RealDisk::existing(directory).with_context(doing)?;
    let report = scan(&disk).with_context(doing)?;
    let oldest = report.segments.first().and_then(|segment| {
        // A service may delete it at any time.
        let metadata = std::fs::metadata(directory.join(&segment.name)).ok()?;
        metadata.modified().ok()
    });
    Ok(Glance {
        bytes: report.segments.iter().map(|segment| segment.bytes).sum(),
        oldest,
        free_bytes: disk.free_bytes().with_context(doing)?,
        report,
    })
}
