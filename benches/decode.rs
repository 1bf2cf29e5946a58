//! From the bytes of a body to rows: split, validate, hash, encode. This is the CPU time of a
//! request without HTTP, the spool and Postgres.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadtest::sample;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::table::Table;

const EVENTS: usize = 100;

fn decode(criterion: &mut Criterion) {
    let pseudonymizer = Pseudonymizer::new(b"salt");
    for table in Table::OF_SUITE {
        let body = sample::body(table, EVENTS);
        let mut group = criterion.benchmark_group(format!("decode/{table}"));
        // Measured twice, because a criterion group has one unit of throughput.
        for (name, throughput) in [
            ("events", Throughput::Elements(EVENTS as u64)),
            ("bytes", Throughput::Bytes(body.len() as u64)),
        ] {
            group.throughput(throughput);
            group.bench_function(name, |bencher| {
                bencher.iter(|| sample::decode_body(black_box(&body), table, &pseudonymizer));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
