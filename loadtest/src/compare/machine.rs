//! What the figures were measured on.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use super::sample::Spread;

/// Syncs that the disk is timed with: a quarter of a second on a slow one.
const SYNCS: u32 = 50;
/// As much as one body of a hundred events leaves in the spool.
const SYNC_BYTES: usize = 24 * 1024;

/// The machine, and what runs on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) postgres: String,
    /// Milliseconds of a small write and its fdatasync, where the spool is.
    #[serde(rename = "fdatasync_ms")]
    pub(crate) sync_ms: Option<Spread>,
}

impl Machine {
    /// Reads what the kernel says, and times the disk of `dir`.
    pub(crate) fn look(dir: &Path, postgres: String) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let kib = value_of(&memory, "MemTotal").and_then(|text| text.strip_suffix(" kB"));
        let kib = kib.and_then(|kib| kib.parse::<u64>().ok());
        let cannot = || format!("cannot time the disk of {}", dir.display());
        Ok(Self {
            cpu: value_of(&read("/proc/cpuinfo"), "model name")
                .unwrap_or("an unknown CPU")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            postgres,
            sync_ms: time_syncs(dir).with_context(cannot)?,
        })
    }
}

/// The first value under `name` in lines of `name : value`.
fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_that_runs_this_has_cores_memory_and_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::look(dir.path(), "16".to_owned()).unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 64 << 20);
        assert!(machine.sync_ms.is_some_and(|spread| spread.median > 0.0));
        let text = "MemTotalX: 1 kB\nMemTotal:   16 kB\n";
        assert_eq!(value_of(text, "MemTotal"), Some("16 kB"));
        assert_eq!(value_of(text, "Mem"), None);
    }
}
