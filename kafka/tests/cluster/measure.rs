//! Figures, printed: how long a take-over takes, and what a broker takes while something is measured
//! beside it.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::harness::{Brokers, Database, Process, body, broker, eventually, number, one, text};

/// Events of a body.
const EVENTS: usize = 10;

/// Clock ticks of a second in /proc.
const TICKS: f64 = 100.0;

/// `cargo test -p recsys-ingest-kafka --test cluster take_over -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, half a minute"]
async fn how_long_a_take_over_from_a_killed_writer_takes() {
    let Some(broker) = broker().await else { return };
    let database = Database::with_tenants().await;
    let intake = Process::serve(&broker, &database, "measured", "intake");
    let mut writer = Process::serve(&broker, &database, "measured", "writer");
    let client = database.connect().await;
    let leases = |what: &str| {
        format!("SELECT count({what}) FROM ingest_leases WHERE until > clock_timestamp()")
    };
    let (held, holders) = (leases("*"), leases("DISTINCT reader"));
    let rows = "SELECT count(*) FROM interaction_events";
    let mut sent = 0;
    let mut all = Vec::new();
    for _ in 0..number("TAKE_OVERS", 5) {
        let other = Process::serve(&broker, &database, "measured", "writer");
        eventually("a share for each", async || {
            one::<i64>(&client, &holders).await == 2 && one::<i64>(&client, &held).await == 6
        })
        .await;
        writer.kill();
        let began = Instant::now();
        for _ in 0..4 {
            let answer = intake.post(&body(sent, EVENTS), "durable").await;
            assert_eq!(answer.status, 202, "{:?}", answer.body);
            sent += 1;
        }
        let expected = i64::try_from(sent * EVENTS).unwrap();
        eventually("all rows", async || {
            one::<i64>(&client, rows).await == expected
        })
        .await;
        all.push(began.elapsed());
        writer = other;
    }
    all.sort_unstable();
    eprintln!(
        "from kill -9 of a writer until the events of its partitions are stored: median {:?}, at most {:?} of {}",
        all[all.len() / 2],
        all[all.len() - 1],
        all.len()
    );
}

/// Runs `MEASURE`, a command line for sh, with `$BROKERS`, and prints the CPU and memory that the
/// brokers took.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_command_beside_brokers() {
    let command = text("MEASURE").expect("MEASURE is a command for sh");
    let count = u16::try_from(number("BROKERS", 1)).unwrap();
    let started = tokio::task::block_in_place(|| Brokers::start("kafka-measured", count));
    let Some(brokers) = started else { return };
    let cpu = || brokers.pids().into_iter().map(cpu_of).collect::<Vec<_>>();
    let before = cpu();
    let began = Instant::now();
    let status = Command::new("/bin/sh")
        .args(["-c", &command])
        .env("BROKERS", brokers.address())
        .status()
        .unwrap();
    let took = began.elapsed();
    for ((pid, before), after) in brokers.pids().into_iter().zip(before).zip(cpu()) {
        eprintln!(
            "a broker took {:.1} s of CPU in {:.1} s, and has {} MiB",
            (after - before).as_secs_f64(),
            took.as_secs_f64(),
            memory_of(pid)
        );
    }
    assert!(status.success());
}

fn cpu_of(pid: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS)
}

/// The largest resident set so far, in MiB.
fn memory_of(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace()
        .next()
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}
