//! The cost of a record between a request and its batch: the checksum in the spool, the copy
//! into the group's buffer, and parsing the rows and their keys.
//!
//! Does not include the disk: see benches/spool.rs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadtest::sample;
use recsys_ingest::event::row::Key;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::event::table::Table;

const EVENTS: usize = 100;

fn frame(criterion: &mut Criterion) {
    for table in Table::OF_SUITE {
        let rows = sample::rows(table, EVENTS);
        let mut group = criterion.benchmark_group(format!("frame/{table}"));
        group.throughput(Throughput::Bytes(rows.framed().len() as u64));
        group.bench_function("checksum", |bencher| {
            bencher.iter(|| crc32c::crc32c(black_box(rows.framed())));
        });
        // The group's buffer holds the payloads one after the other.
        let mut group_of_frames = Vec::with_capacity(64 * rows.framed().len());
        group.bench_function("append", |bencher| {
            bencher.iter(|| {
                if group_of_frames.len() + rows.framed().len() > group_of_frames.capacity() {
                    group_of_frames.clear();
                }
                group_of_frames.extend_from_slice(black_box(rows.framed()));
            });
        });
        group.bench_function("parse", |bencher| {
            bencher.iter(|| {
                let parsed = Rows::parse(black_box(rows.framed()).clone());
                parsed.expect("the rows are sound").len()
            });
        });
        group.bench_function("keys", |bencher| {
            bencher.iter(|| {
                let keys = black_box(&rows).iter().filter_map(Key::of_row);
                keys.map(|key| key.occurred_at).max()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, frame);
criterion_main!(benches);
