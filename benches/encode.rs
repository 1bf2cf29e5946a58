//! Typed values to rows of binary COPY, without decoding.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadtest::sample;
use recsys_ingest::event::numeric::Decimal;
use recsys_ingest::event::row::Key;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::event::row::writer::RowWriter;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use uuid::Uuid;

const ROWS: usize = 100;

fn interactions() -> Rows {
    let mut writer = RowWriter::new(Table::Interactions, ROWS * 256);
    let value = Decimal::parse("129.99");
    for (n, us) in (0..ROWS).zip(0_i64..) {
        let key = Key {
            tenant: Uuid::from_u128(7),
            occurred_at: Micros(sample::NOW.0 + us),
            event_id: Uuid::from_u128(n as u128),
        };
        let mut row = writer.row(black_box(&key));
        row.time(sample::NOW)
            .opt_uuid(Some(&key.event_id))
            .opt_bytes(Some(&[7; 32]))
            .text("20d2b711450439d105cbff84f5df086ac3d4c699bd59765c11192e8060e47bbe")
            .text("home")
            .text("default")
            .text("click")
            .text("item-12345")
            .opt_int(Some(3))
            .opt_decimal(value)
            .opt_json(Some(r#"{"source":"ingest","schema":"native"}"#))
            .end();
    }
    writer.finish()
}

fn encode(criterion: &mut Criterion) {
    let bytes = interactions().framed().len() as u64;
    let mut group = criterion.benchmark_group("encode/interaction_events");
    for (name, throughput) in [
        ("rows", Throughput::Elements(ROWS as u64)),
        ("bytes", Throughput::Bytes(bytes)),
    ] {
        group.throughput(throughput);
        group.bench_function(name, |bencher| bencher.iter(interactions));
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
