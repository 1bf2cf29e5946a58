//! What processes cost, as the kernel counts it. Linux only: it reads `/proc`.

use std::fs;

use anyhow::Context as _;

use crate::report::float;

/// How often the children of a process are counted again because some came or went.
const ATTEMPTS: u32 = 20;

/// CPU time of a process in seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    parent: u32,
    own: f64,
    /// Of children that ended and were waited for.
    ended: f64,
}

/// CPU seconds that a process has used itself.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    Ok(times(pid)?.own)
}

/// CPU seconds of this process and of the programs that it ran and waited for.
pub(crate) fn cpu_of_us() -> anyhow::Result<f64> {
    let times = times(std::process::id())?;
    Ok(times.own + times.ended)
}

/// CPU seconds of a process, its children, and those of them that have ended.
///
/// Right for a family of two generations, such as a Postgres server.
pub(crate) fn cpu_of_family(pid: u32) -> anyhow::Result<f64> {
    let mut before = children(pid)?;
    for _ in 0..ATTEMPTS {
        let parent = times(pid)?;
        let living = before.iter().filter_map(|child| times(*child).ok());
        let living: f64 = living.map(|child| child.own).sum();
        let after = children(pid)?;
        // A child that ended in between would count twice, or not at all.
        if after == before {
            return Ok(parent.own + parent.ended + living);
        }
        before = after;
    }
    anyhow::bail!("the children of process {pid} come and go too fast to be counted")
}

/// The most memory that a process has had in RAM since [`reset_peak`], in bytes.
pub(crate) fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let kib = kib.with_context(|| format!("{path} has no peak of memory (VmHWM)"))?;
    Ok(kib * 1024)
}

/// Lets the peak start again from what the process has now.
pub(crate) fn reset_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write to {path}"))
}

fn times(pid: u32) -> anyhow::Result<Times> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&stat, rustix::param::clock_ticks_per_second())
        .with_context(|| format!("{path} is not as proc(5) describes it"))
}

/// Reads a line of `/proc/<pid>/stat`.
fn parse(stat: &str, ticks_per_second: u64) -> Option<Times> {
    // The program's name may hold blanks and brackets: what counts is behind the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbered as in proc(5), where the state, our first, is the third.
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let seconds = |ticks: u64| float(ticks) / float(ticks_per_second);
    Some(Times {
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(ticks(14)? + ticks(15)?),
        ended: seconds(ticks(16)? + ticks(17)?),
    })
}

/// The living children of a process, in ascending order.
fn children(of: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let name = entry.context("cannot list /proc")?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        // A process that has just ended has no parent.
        children.extend(pid.filter(|pid| times(*pid).is_ok_and(|times| times.parent == of)));
    }
    children.sort_unstable();
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_program_with_blanks_and_brackets_in_its_name_is_read_all_the_same() {
        let stat = "7 (a) b (c) S 42 7 7 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 9 9 9";
        let times = parse(stat, 100).unwrap();
        assert_eq!(times.parent, 42);
        assert!((times.own - 2.0).abs() < 1e-9 && (times.ended - 0.5).abs() < 1e-9);
        assert!(parse("7 (short) S 42", 100).is_none());
    }

    #[test]
    fn a_child_counts_with_its_family_while_it_lives_and_after() {
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read x";
        let mut command = Command::new("sh");
        let command = command.args(["-c", busy]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while cpu_of(child.id()).unwrap() < 0.05 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(children(std::process::id()).unwrap().contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(cpu_of_us().unwrap() >= 0.05);
    }

    #[test]
    fn the_peak_of_memory_is_more_than_nothing_and_can_be_reset() {
        let us = std::process::id();
        reset_peak(us).unwrap();
        assert!(peak_bytes(us).unwrap() > 1 << 20);
    }
}
