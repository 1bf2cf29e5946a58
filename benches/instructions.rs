//! Counts instructions per event with callgrind. The count does not depend on the machine's
//! load, so a change of one percent shows.
//!
//! `cargo bench --bench instructions` runs each case under valgrind twice, with different
//! numbers of repetitions, and divides the difference by the events. So start-up and set-up
//! cancel out.

use std::hint::black_box;
use std::process::Command;

use loadtest::sample;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::json::scan::Scanner;
use recsys_ingest::event::row::Key;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::event::table::Table;

const EVENTS: usize = 100;
/// Repetitions of the shorter and the longer run.
const REPETITIONS: [u64; 2] = [2, 12];

/// A name and the function that it runs.
type Case = (&'static str, fn(u64));

const CASES: [Case; 6] = [
    ("decode interaction", |times| {
        decode(Table::Interactions, times)
    }),
    ("decode exposure", |times| decode(Table::Exposures, times)),
    ("scan interaction", |times| scan(Table::Interactions, times)),
    ("scan exposure", |times| scan(Table::Exposures, times)),
    ("parse row of interaction", |times| {
        parse(Table::Interactions, times)
    }),
    ("sort row of interaction", sort),
];

fn decode(table: Table, times: u64) {
    let body = sample::body(table, EVENTS);
    let pseudonymizer = Pseudonymizer::new(b"salt");
    for _ in 0..times {
        black_box(sample::decode_body(black_box(&body), table, &pseudonymizer));
    }
}

fn scan(table: Table, times: u64) {
    let body = sample::body(table, EVENTS);
    for _ in 0..times {
        let scanned = Scanner::new(black_box(&body)).value(0);
        black_box(scanned.expect("the body is sound").raw);
    }
}

fn parse(table: Table, times: u64) {
    let rows = sample::rows(table, EVENTS);
    for _ in 0..times {
        let parsed = Rows::parse(black_box(rows.framed()).clone());
        black_box(parsed.expect("the rows are sound"));
    }
}

fn sort(times: u64) {
    let rows = sample::rows(Table::Interactions, EVENTS);
    for _ in 0..times {
        let mut keys: Vec<Key> = black_box(&rows).iter().filter_map(Key::of_row).collect();
        keys.sort();
        black_box(keys);
    }
}

/// Runs this program under callgrind; returns the number of instructions.
fn count(case: &str, times: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--case", case, &times.to_string()])
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}; install it"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let counted = log
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok());
    match counted {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("valgrind failed on '{case}':\n{log}")),
    }
}

fn count_all() -> Result<(), String> {
    println!("instructions an event, bodies of {EVENTS}");
    for (name, _) in CASES {
        let [few, many] = REPETITIONS;
        let difference = count(name, many)?.saturating_sub(count(name, few)?);
        let an_event = difference / (many - few) / EVENTS as u64;
        println!("{name:<28} {an_event:>8}");
    }
    Ok(())
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["--case", name, times] => {
            let (_, run) = CASES
                .into_iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| format!("there is no case '{name}'"))?;
            run(times
                .parse()
                .map_err(|_| format!("'{times}' is no number"))?);
            Ok(())
        }
        texts if texts.contains(&"--bench") => count_all(),
        // `cargo test --benches` only checks that it builds.
        _ => Ok(()),
    }
}
