//! What the figures were measured on.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::sample::Spread;

/// Syncs that the disk is timed with: a quarter of a second on a slow one.
const SYNCS: u32 = 50;
/// As much as one body of a hundred events leaves in the spool.
const SYNC_BYTES: usize = 24 * 1024;

/// The machine, and what runs on it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) postgres: String,
    /// Milliseconds of a small write and its fdatasync, where the spool is.
    pub(crate) sync_ms: Option<Spread>,
}

impl Machine {
    /// Looks around; `dir` is on the disk that counts.
    pub(crate) fn look(dir: &Path, postgres: String) -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = value_of(&meminfo, "MemTotal").and_then(|text| {
            let (kib, _) = text.split_once(' ')?;
            kib.parse::<u64>().ok()
        });
        Ok(Self {
            cpu: value_of(&cpuinfo, "model name")
                .map_or("an unknown CPU".to_owned(), str::to_owned),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or(String::new(), |text| text.trim().to_owned()),
            postgres,
            sync_ms: time_syncs(dir)
                .with_context(|| format!("cannot time the disk of {}", dir.display()))?,
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "kernel": self.kernel,
            "postgres": self.postgres,
            "fdatasync_ms": self.sync_ms.map(|spread| spread.json()),
        })
    }
}

/// The first value under `name` in lines of `name : value`.
fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn time_syncs(dir: &Path) -> anyhow::Result<Option<Spread>> {
    let mut file = tempfile::tempfile_in(dir)?;
    let bytes = [7; SYNC_BYTES];
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(Spread::of(
        times.iter().map(Duration::as_secs_f64).map(|s| s * 1e3),
    ))
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
    }

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:   16 kB\n";
        assert_eq!(value_of(text, "MemTotal"), Some("16 kB"));
        assert_eq!(value_of(text, "Mem"), None);
    }
}
