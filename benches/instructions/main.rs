//! Counts instructions per event with callgrind. The count does not depend on the machine's
//! load, so a change of one percent shows.
//!
//! `cargo bench --bench instructions` runs each case under valgrind twice, with different
//! numbers of repetitions, and divides the difference by the events, or by the requests. So start-up
//! and set-up cancel out.

mod request;

use std::error::Error;
use std::hint::black_box;
use std::process::Command;

use loadtest::sample;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::json::scan::Scanner;
use recsys_ingest::event::row::Key;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::event::table::Table;

const EVENTS: usize = 100;
/// Repetitions of the shorter and the longer run; of a request more, as its bytes do not always
/// arrive in as many pieces.
const REPETITIONS: [u64; 2] = [2, 12];
const REQUESTS: [u64; 2] = [20, 220];

/// Runs a case this many times.
type Run = fn(u64) -> Result<(), Box<dyn Error>>;

struct Case {
    name: &'static str,
    run: Run,
    /// The function whose instructions are counted; without one, those of the process are.
    counted: Option<&'static str>,
    repetitions: [u64; 2],
    /// What one repetition does, for the division.
    units: u64,
}

impl Case {
    const fn of_events(name: &'static str, run: Run) -> Self {
        Self {
            name,
            run,
            counted: None,
            repetitions: REPETITIONS,
            units: EVENTS as u64,
        }
    }

    const fn of_requests(name: &'static str, run: Run) -> Self {
        Self {
            name,
            run,
            counted: Some(request::CONNECTION),
            repetitions: REQUESTS,
            units: 1,
        }
    }
}

static CASES: [Case; 8] = [
    Case::of_events("decode interaction", |times| {
        decode(Table::Interactions, times)
    }),
    Case::of_events("decode exposure", |times| decode(Table::Exposures, times)),
    Case::of_events("scan interaction", |times| scan(Table::Interactions, times)),
    Case::of_events("scan exposure", |times| scan(Table::Exposures, times)),
    Case::of_events("parse row of interaction", |times| {
        parse(Table::Interactions, times)
    }),
    Case::of_events("sort row of interaction", sort),
    Case::of_requests("request of 1 event", |times| request::post(1, times)),
    Case::of_requests("request of 100 events", |times| {
        request::post(EVENTS, times)
    }),
];

fn decode(table: Table, times: u64) -> Result<(), Box<dyn Error>> {
    let body = sample::body(table, EVENTS);
    let pseudonymizer = Pseudonymizer::new(b"salt");
    for _ in 0..times {
        black_box(sample::decode_body(black_box(&body), table, &pseudonymizer));
    }
    Ok(())
}

fn scan(table: Table, times: u64) -> Result<(), Box<dyn Error>> {
    let body = sample::body(table, EVENTS);
    for _ in 0..times {
        let scanned = Scanner::new(black_box(&body)).value(0);
        black_box(scanned.expect("the body is sound").raw);
    }
    Ok(())
}

fn parse(table: Table, times: u64) -> Result<(), Box<dyn Error>> {
    let rows = sample::rows(table, EVENTS);
    for _ in 0..times {
        let parsed = Rows::parse(black_box(rows.framed()).clone());
        black_box(parsed.expect("the rows are sound"));
    }
    Ok(())
}

fn sort(times: u64) -> Result<(), Box<dyn Error>> {
    let rows = sample::rows(Table::Interactions, EVENTS);
    for _ in 0..times {
        let mut keys: Vec<Key> = black_box(&rows).iter().filter_map(Key::of_row).collect();
        keys.sort();
        black_box(keys);
    }
    Ok(())
}

/// Runs this program under callgrind; returns the number of instructions.
fn count(case: &Case, times: u64) -> Result<u64, Box<dyn Error>> {
    let counted = case.counted.map(|name| format!("--toggle-collect={name}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(counted)
        .arg(std::env::current_exe()?)
        .args(["--case", case.name, &times.to_string()])
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}; install it"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let count = log
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok());
    match count {
        Some(0) => Err(format!(
            "nothing was counted of '{}': is the function still called {}?",
            case.name,
            case.counted.unwrap_or("main")
        )
        .into()),
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("valgrind failed on '{}':\n{log}", case.name).into()),
    }
}

fn count_all() -> Result<(), Box<dyn Error>> {
    println!("instructions an event, in bodies of {EVENTS}, or a request");
    for case in &CASES {
        let [few, many] = case.repetitions;
        let difference = count(case, many)?.saturating_sub(count(case, few)?);
        let one = difference / (many - few) / case.units;
        println!("{:<28} {one:>8}", case.name);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["--case", name, times] => {
            let case = CASES.iter().find(|case| case.name == *name);
            let case = case.ok_or_else(|| format!("there is no case '{name}'"))?;
            let times = times.parse();
            (case.run)(times.map_err(|_| format!("the repetitions of '{name}' are no number"))?)
        }
        texts if texts.contains(&"--bench") => count_all(),
        // `cargo test --benches` only checks that it builds.
        _ => Ok(()),
    }
}
