//! The JSON scanner alone, compared with what serde's derive makes of the same events.
//!
//! The scanner finds for every event where its members end, and whether jsonb accepts them.
//! The derive parses the members into a struct, whether or not jsonb accepts them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadtest::sample;
use recsys_ingest::event::json::scan::Scanner;
use recsys_ingest::event::table::Table;
use serde::Deserialize;
use serde_json::value::RawValue;

const EVENTS: usize = 100;

/// A native event of either table.
#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing is what is measured")]
struct Event<'a> {
    event_id: String,
    occurred_at: String,
    request_id: Option<String>,
    surface: Option<String>,
    segment: Option<String>,
    user_id: Option<String>,
    user_id_hash: Option<String>,
    anonymous_id: Option<String>,
    session_id: Option<String>,
    session_id_hash: Option<String>,
    experiment: Option<Experiment>,
    algo_version: Option<String>,
    config_version: Option<String>,
    rules_version: Option<String>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
    items: Option<Vec<Item>>,
    event_type: Option<String>,
    item_id: Option<String>,
    position: Option<u32>,
    value: Option<f64>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing is what is measured")]
struct Experiment {
    id: String,
    variant: String,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing is what is measured")]
struct Item {
    item_id: String,
    rank: u32,
    score: f64,
}

/// Members of all events of a body, with the service's scanner.
fn scan_members(text: &str) -> usize {
    let mut scanner = Scanner::new(text);
    let mut members = 0;
    scanner.expect(b'[', "an array").expect("it is an array");
    loop {
        scanner.expect(b'{', "an event").expect("it is an object");
        loop {
            let (key, flaw) = scanner.key().expect("it has a key");
            let value = scanner.value(1).expect("it has a value");
            assert!(flaw.or(value.flaw).is_none());
            black_box((key, value.raw));
            members += 1;
            if !scanner.take(b',') {
                break;
            }
        }
        scanner.expect(b'}', "an end").expect("the event ends");
        if !scanner.take(b',') {
            return members;
        }
    }
}

fn json(criterion: &mut Criterion) {
    for table in Table::OF_SUITE {
        let body = sample::body(table, EVENTS);
        let mut group = criterion.benchmark_group(format!("json/{table}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("utf8_check", |bencher| {
            bencher.iter(|| simdutf8::basic::from_utf8(black_box(body.as_bytes())).is_ok());
        });
        group.bench_function("scanner_whole", |bencher| {
            bencher.iter(|| {
                let scanned = Scanner::new(black_box(&body)).value(0);
                scanned.expect("the body is sound").raw.len()
            });
        });
        group.bench_function("scanner_members", |bencher| {
            bencher.iter(|| scan_members(black_box(&body)));
        });
        group.bench_function("serde_derive", |bencher| {
            bencher.iter(|| {
                let events: Vec<Event<'_>> =
                    serde_json::from_str(black_box(&body)).expect("the body is sound");
                black_box(events).len()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, json);
criterion_main!(benches);
