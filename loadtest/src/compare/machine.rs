//! What the figures were measured on.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use procfs::sys::kernel::Version as KernelVersion;
use procfs::{CpuInfo, Current as _, Meminfo};
use serde::Serialize;

use super::sample::Spread;

/// Syncs that the disk is timed with: a quarter of a second on a slow one.
const SYNCS: u32 = 50;
/// As much as one body of a hundred events leaves in the spool.
const SYNC_BYTES: usize = 24 * 1024;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub postgres: String,
    /// Milliseconds of a small write and its fdatasync, where the spool is.
    #[serde(rename = "fdatasync_ms")]
    pub sync_ms: Option<Spread>,
}

impl Machine {
    /// Reads what the kernel says, and times the disk of `dir`.
    pub fn look(dir: &Path, postgres: String) -> anyhow::Result<Self> {
        let cpus = CpuInfo::current().context("cannot read /proc/cpuinfo")?;
        let memory = Meminfo::current().context("cannot read /proc/meminfo")?;
        let kernel = KernelVersion::current().context("cannot read the kernel's version")?;
        let cannot = || format!("cannot time the disk of {}", dir.display());
        Ok(Self {
            cpu: cpus.model_name(0).unwrap_or("an unknown CPU").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.mem_total,
            kernel: format!("{}.{}.{}", kernel.major, kernel.minor, kernel.patch),
            postgres,
            sync_ms: time_syncs(dir).with_context(cannot)?,
        })
    }
}

fn time_syncs(dir: &Path) -> anyhow::Result<Option<Spread>> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[7; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Spread::of(times))
}
