//! Compares three ways to store a batch of which a share is stored already.
//!
//! `cargo bench --bench duplicates` starts a private PostgreSQL and prints rows per second for
//! each way: medians of several rounds that alternate. The numbers are in
//! docs/decisions/0003-duplicates.md.

#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement, not the service"
)]

use std::pin::pin;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use private_postgres::{Options, PrivatePostgres};
use recsys_ingest::event::row::Key;
use recsys_ingest::event::row::writer::RowWriter;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use recsys_ingest::partitions::create::ensure_ahead;
use recsys_ingest::partitions::range::Interval;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::migrate;
use recsys_ingest::postgres::session::Session;
use uuid::Uuid;

const ROWS: usize = 10_000;
const ROUNDS: usize = 15;
const NOW: Micros = Micros(1_790_000_000_000_000);

struct Batch {
    keys: Vec<Key>,
    rows: Vec<Vec<u8>>,
}

/// A batch; a `share` of its rows repeats keys of the batch that began after `old`.
fn batch(serial: &mut u128, old: u128, share: f64) -> Batch {
    let mut batch = Batch {
        keys: Vec::new(),
        rows: Vec::new(),
    };
    for n in 0..ROWS {
        let repeats = (n as f64 * share).fract() + share >= 1.0;
        *serial += 1;
        let id = if repeats {
            old + 1 + n as u128
        } else {
            *serial
        };
        let key = Key {
            tenant: Uuid::from_u128(1),
            occurred_at: Micros(NOW.0 + i64::try_from(id).unwrap()),
            event_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, &id.to_be_bytes()),
        };
        let mut writer = RowWriter::new(Table::Interactions, 256);
        let mut row = writer.row(&key);
        row.time(NOW)
            .opt_uuid(Some(&key.event_id))
            .opt_bytes(Some(&[7; 32]));
        row.text("20d2b711450439d105cbff84f5df086ac3d4c699bd59765c11192e8060e47bbe");
        row.text("home")
            .text("default")
            .text("click")
            .text("item-12345");
        row.opt_int(Some(3)).opt_decimal(None).opt_json(None).end();
        batch
            .rows
            .push(writer.finish().iter().next().unwrap().to_vec());
        batch.keys.push(key);
    }
    batch
}

async fn copy(session: &Session, table: &str, batch: &Batch, skip: &[bool]) {
    let columns: Vec<_> = Table::Interactions
        .columns()
        .iter()
        .map(|c| c.name)
        .collect();
    let statement = format!(
        "COPY {table} ({}) FROM STDIN (FORMAT binary)",
        columns.join(", ")
    );
    let mut sink = pin!(
        session
            .client
            .copy_in::<_, Bytes>(&statement)
            .await
            .unwrap()
    );
    let mut chunk = BytesMut::new();
    chunk.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for (at, row) in batch.rows.iter().enumerate() {
        if !skip.get(at).copied().unwrap_or(false) {
            chunk.put_slice(row);
        }
        if chunk.len() > 256 * 1024 {
            sink.feed(chunk.split().freeze()).await.unwrap();
        }
    }
    chunk.put_i16(-1);
    sink.feed(chunk.freeze()).await.unwrap();
    sink.finish().await.unwrap();
}

async fn probe_then_copy(session: &Session, batch: &Batch) {
    session.client.batch_execute("BEGIN").await.unwrap();
    let tenants: Vec<_> = batch.keys.iter().map(|key| key.tenant).collect();
    let ids: Vec<_> = batch.keys.iter().map(|key| key.event_id).collect();
    let times: Vec<_> = batch.keys.iter().map(|key| key.occurred_at).collect();
    let found = session
        .client
        .query(
            "SELECT w.n FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[])
                WITH ORDINALITY AS w(t, o, e, n)
              WHERE (SELECT true FROM interaction_events s
                      WHERE s.tenant_id = w.t AND s.occurred_at = w.o AND s.event_id = w.e LIMIT 1)",
            &[&tenants, &times, &ids],
        )
        .await
        .unwrap();
    let mut skip = vec![false; ROWS];
    for row in found {
        skip[usize::try_from(row.get::<_, i64>(0) - 1).unwrap()] = true;
    }
    copy(session, "interaction_events", batch, &skip).await;
    session.client.batch_execute("COMMIT").await.unwrap();
}

async fn copy_then_merge(session: &Session, batch: &Batch) {
    session.client.batch_execute("BEGIN").await.unwrap();
    copy(session, "merge_buffer", batch, &[]).await;
    session
        .client
        .query(
            "INSERT INTO interaction_events SELECT * FROM merge_buffer
                 ON CONFLICT DO NOTHING RETURNING tenant_id, occurred_at, event_id",
            &[],
        )
        .await
        .unwrap();
    session.client.batch_execute("COMMIT").await.unwrap();
}

async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::ephemeral(folder.path());
    options.durable = true;
    options.settings = vec![
        ("shared_buffers".into(), "256MB".into()),
        ("max_wal_size".into(), "4GB".into()),
    ];
    let server = PrivatePostgres::start(&options).unwrap();
    let target = Target::parse(&server.url()).unwrap();
    let mut session = Session::open(&target, None).await.unwrap();
    migrate::migrate(&mut session.client).await.unwrap();
    ensure_ahead(
        &mut session.client,
        Table::Interactions,
        Interval::Day,
        NOW.0,
        1,
    )
    .await
    .unwrap();
    session
        .client
        .batch_execute(
            "CREATE TEMP TABLE merge_buffer (LIKE interaction_events) ON COMMIT DELETE ROWS",
        )
        .await
        .unwrap();

    println!(
        "PostgreSQL {}, batches of {ROWS} interactions, medians of {ROUNDS}",
        server.version()
    );
    println!(
        "share stored already | direct COPY of new rows | probe, then COPY | temp table, then merge"
    );
    let mut serial = 1_000_000;
    for share in [0.0, 0.01, 0.3, 1.0] {
        let mut seconds = [const { Vec::new() }; 3];
        // Later batches repeat the keys of this one.
        let old = serial;
        copy(
            &session,
            "interaction_events",
            &batch(&mut serial, old, 0.0),
            &[],
        )
        .await;
        for _ in 0..ROUNDS {
            let fresh = batch(&mut serial, old, 0.0);
            let started = Instant::now();
            copy(&session, "interaction_events", &fresh, &[]).await;
            seconds[0].push(started.elapsed().as_secs_f64());
            let mixed = batch(&mut serial, old, share);
            let started = Instant::now();
            probe_then_copy(&session, &mixed).await;
            seconds[1].push(started.elapsed().as_secs_f64());
            let mixed = batch(&mut serial, old, share);
            let started = Instant::now();
            copy_then_merge(&session, &mixed).await;
            seconds[2].push(started.elapsed().as_secs_f64());
        }
        let rates = seconds.map(|mut runs: Vec<f64>| {
            runs.sort_by(f64::total_cmp);
            ROWS as f64 / runs[runs.len() / 2]
        });
        println!(
            "{:>20} | {:>12.0} rows/s (1.00) | {:>9.0} ({:.2}) | {:>9.0} ({:.2})",
            format!("{:.0} %", share * 100.0),
            rates[0],
            rates[1],
            rates[1] / rates[0],
            rates[2],
            rates[2] / rates[0]
        );
    }
    server.stop().unwrap();
}

fn main() {
    // Without `--bench`, as from `cargo test --benches`, there is nothing to run.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}
