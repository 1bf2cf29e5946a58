//! What processes cost, as the kernel counts it. Linux only: it reads `/proc`.

use std::fs;

use anyhow::Context as _;
use procfs::process::{Process, Stat};
use procfs::ticks_per_second;

use crate::report::float;

/// How often the children of a process are counted again because some came or went.
const ATTEMPTS: u32 = 20;

fn stat(pid: u32) -> anyhow::Result<Stat> {
    let stat = Process::new(i32::try_from(pid)?).and_then(|process| process.stat());
    stat.with_context(|| format!("cannot read what process {pid} has used"))
}

/// CPU seconds that a process has used itself.
fn own(stat: &Stat) -> f64 {
    float(stat.utime + stat.stime) / float(ticks_per_second())
}

/// CPU seconds of a process's children that ended and were waited for.
fn ended(stat: &Stat) -> f64 {
    let ticks = stat.cutime.unsigned_abs() + stat.cstime.unsigned_abs();
    float(ticks) / float(ticks_per_second())
}

/// CPU seconds that a process has used itself.
pub fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    Ok(own(&stat(pid)?))
}

/// CPU seconds of this process and of the programs that it ran and waited for.
pub fn cpu_of_us() -> anyhow::Result<f64> {
    let stat = stat(std::process::id())?;
    Ok(own(&stat) + ended(&stat))
}

/// CPU seconds of a process, its children, and those of them that have ended.
///
/// Right for a family of two generations, such as a Postgres server.
pub fn cpu_of_family(pid: u32) -> anyhow::Result<f64> {
    let mut before = children(pid)?;
    for _ in 0..ATTEMPTS {
        let parent = stat(pid)?;
        let living: f64 = before.iter().filter_map(|child| cpu_of(*child).ok()).sum();
        let after = children(pid)?;
        // A child that ended in between would count twice, or not at all.
        if after == before {
            return Ok(own(&parent) + ended(&parent) + living);
        }
        before = after;
    }
    anyhow::bail!("the children of process {pid} come and go too fast to be counted")
}

/// The living children of a process, which its main thread began.
fn children(of: u32) -> anyhow::Result<Vec<u32>> {
    let thread = Process::new(i32::try_from(of)?).and_then(|process| process.task_main_thread());
    let children = thread.and_then(|thread| thread.children());
    children.with_context(|| format!("cannot list the children of process {of}"))
}

/// The most memory that a process has had in RAM since [`reset_peak`], in bytes.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = Process::new(i32::try_from(pid)?).and_then(|process| process.status());
    let kib = status.ok().and_then(|status| status.vmhwm);
    let kib = kib.with_context(|| format!("process {pid} has no peak of memory (VmHWM)"))?;
    Ok(kib * 1024)
}

/// Lets the peak start again from what the process has now.
pub fn reset_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write to {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_count_with_their_family_while_they_live_and_after_and_memory_has_a_peak() {
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read x";
        let mut command = Command::new("sh");
        // A child of the child, which is another shell.
        let command = command.args(["-c", "sh -c \"$0\"; read y", busy]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        while cpu_of_family(child.id()).unwrap() < 0.05 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(cpu_of(child.id()).unwrap() < 0.05);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(cpu_of_us().unwrap() >= 0.05);

        reset_peak(std::process::id()).unwrap();
        assert!(peak_bytes(std::process::id()).unwrap() > 1 << 20);
    }
}
