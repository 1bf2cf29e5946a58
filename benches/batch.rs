//! Gathers the rows of many records into a batch in index order, and lays them out for COPY.
//!
//! Does with the public rows and keys what the writer's batch and `postgres::copy` do inside.
//! Keep the two in step.

use std::hint::black_box;

use bytes::{BufMut as _, Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use loadtest::sample;
use recsys_ingest::event::row::Key;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::event::table::Table;

/// Rows of a full batch.
const ROWS: usize = 10_000;
const CHUNK_BYTES: usize = 256 * 1024;

type Place = (Key, usize, u32, u32);

/// The rows of a batch, dealt out to records in turn, so that rows that are close in time come
/// from different requests.
fn frames(table: Table, events_a_frame: usize) -> Vec<Rows> {
    let rows = sample::rows(table, ROWS);
    let all: Vec<&[u8]> = rows.iter().collect();
    let frames = ROWS / events_a_frame;
    let prefix = &rows.framed()[..2];
    (0..frames)
        .map(|frame| {
            let mut bytes = BytesMut::from(prefix);
            for row in all.iter().skip(frame).step_by(frames) {
                bytes.put_slice(row);
            }
            Rows::parse(bytes.freeze()).expect("the rows are sound")
        })
        .collect()
}

fn gather(frames: &[Rows]) -> Vec<Place> {
    let mut places = Vec::with_capacity(frames.iter().map(Rows::len).sum());
    for (at, frame) in frames.iter().enumerate() {
        for (from, to) in frame.spans() {
            let row = &frame.framed()[from as usize..to as usize];
            let key = Key::of_row(row).expect("rows begin with their key");
            places.push((key, at, from, to));
        }
    }
    places
}

fn lay_out(frames: &[Rows], places: &[Place]) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    for (_, frame, from, to) in places {
        let row = &frames[*frame].framed()[*from as usize..*to as usize];
        if chunk.len() + row.len() > CHUNK_BYTES && !chunk.is_empty() {
            chunks.push(chunk.split().freeze());
            chunk.reserve(CHUNK_BYTES);
        }
        chunk.put_slice(row);
    }
    chunks.push(chunk.freeze());
    chunks
}

fn batch(criterion: &mut Criterion) {
    for events_a_frame in [1, 100] {
        let frames = frames(Table::Interactions, events_a_frame);
        let name = format!("batch/frames_of_{events_a_frame}");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(ROWS as u64));
        group.bench_function("gather", |bencher| {
            bencher.iter(|| gather(black_box(&frames)));
        });
        let gathered = gather(&frames);
        group.bench_function("sort", |bencher| {
            bencher.iter_batched_ref(
                || gathered.clone(),
                |places| places.sort_unstable(),
                BatchSize::LargeInput,
            );
        });
        let mut sorted = gathered;
        sorted.sort_unstable();
        group.bench_function("lay_out", |bencher| {
            bencher.iter(|| lay_out(black_box(&frames), black_box(&sorted)));
        });
        group.finish();
    }
}

criterion_group!(benches, batch);
criterion_main!(benches);
