//! Group commit on a real directory: records of 32 KiB made durable, in groups of several
//! sizes.
//!
//! The group's size is the number of answers awaited at once, as with concurrent requests.
//! `SPOOL_BENCH_DIR` names another directory than the one for temporary files, which may be in
//! memory.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recsys_ingest::log::read::Next;
use recsys_ingest::log::record::{AppendError, Record, Turn};
use recsys_ingest::log::spool;
use recsys_ingest::log::spool::deliver::reader::LaneReader;
use recsys_ingest::log::spool::settings::Settings;
use recsys_ingest::log::spool::shared::Spool;
use tokio::sync::oneshot;

const FRAME_BYTES: usize = 32 << 10;

fn frame(payload: &Bytes) -> (Record<(), ()>, oneshot::Receiver<Result<(), AppendError>>) {
    let (durable, answer) = oneshot::channel();
    let entry = Record {
        stream: 0,
        items: 100,
        payload: payload.clone(),
        turn: Turn::default(),
        durable: Some(durable),
        memory: (),
        result: None,
    };
    (entry, answer)
}

/// A writer that only acks.
fn drain(mut reader: LaneReader<(), ()>, spool: Spool) {
    loop {
        let last = match reader.try_next() {
            Next::Record(frame) => Some(frame.sequence),
            Next::Fetch => reader
                .read_from_disk(1 << 20)
                .expect("the disk can be read")
                .last()
                .map(|frame| frame.sequence),
            Next::Empty => {
                thread::sleep(Duration::from_micros(200));
                None
            }
            Next::Ended => return,
        };
        if let Some(last) = last {
            spool.ack(0, last);
        }
    }
}

fn commit(criterion: &mut Criterion) {
    let parent = std::env::var_os("SPOOL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent).expect("the directory can be written to");
    let settings = Settings {
        disk_reserve_bytes: 0,
        ..Settings::default()
    };
    let (sender, entries) = flume::bounded(256);
    let opened =
        spool::recover::open::open(directory.path(), settings, entries).expect("the spool opens");
    let committing = thread::spawn(|| opened.committer.run());
    let mut threads: Vec<JoinHandle<()>> = vec![committing];
    for reader in opened.readers {
        let spool = opened.spool.clone();
        threads.push(thread::spawn(|| drain(reader, spool)));
    }
    let payload = Bytes::from(vec![0x5a; FRAME_BYTES]);
    let mut group = criterion.benchmark_group("group commit");
    for frames in [1, 4, 16, 64] {
        group.throughput(Throughput::Bytes((frames * FRAME_BYTES) as u64));
        group.bench_function(format!("{frames} × 32 KiB"), |bencher| {
            bencher.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    let (entries, answers): (Vec<_>, Vec<_>) =
                        (0..frames).map(|_| frame(&payload)).unzip();
                    for entry in entries {
                        sender.send(entry).expect("the committing thread runs");
                    }
                    for answer in answers {
                        let durable = answer.blocking_recv().expect("everyone is answered");
                        assert_eq!(durable, Ok(()), "the disk is too small for the benchmark");
                    }
                }
                start.elapsed()
            });
        });
    }
    group.finish();
    drop(sender);
    for thread in threads {
        thread.join().expect("nobody panics");
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);
