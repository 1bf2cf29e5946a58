//! Compares indexes that are kept up row by row with indexes that are built in bulk.
//!
//! `cargo bench --bench sealing` starts a private PostgreSQL, copies the same rows into a
//! partition with all indexes and into one with its key only, seals the latter, and prints
//! seconds: medians of several rounds that alternate. The numbers are in
//! docs/decisions/0005-sealing.md.

#![expect(clippy::unwrap_used, reason = "a measurement, not the service")]

use std::time::Instant;

use private_postgres::{Options, PrivatePostgres};
use recsys_ingest::event::table::Table;
use recsys_ingest::metrics::Metrics;
use recsys_ingest::partitions::create::ensure_with;
use recsys_ingest::partitions::indexes::IndexProfile;
use recsys_ingest::partitions::range::Interval;
use recsys_ingest::partitions::seal::plan::Selection;
use recsys_ingest::partitions::seal::work::seal;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::migrate;
use recsys_ingest::postgres::session::Session;

const ROUNDS: usize = 5;

/// Rows of one COPY, as the writers send them.
const BATCH: usize = 10_000;

/// A time of the day that all rows belong to.
const NOON_US: i64 = 1_790_000_000_000_000;

/// About 240 bytes per row: 20 tenants, 50,000 users, 20,000 items, in order of time.
const INTERACTIONS: &str = "
    SELECT md5((n % 20)::text)::uuid AS tenant_id, at AS occurred_at, gen_random_uuid() AS event_id,
           at AS received_at, md5((n / 5)::text)::uuid AS request_id,
           sha256((random() * 50000)::int::text::bytea) AS user_key,
           encode(sha256(n::text::bytea), 'hex') AS session_id, 'home' AS surface,
           'default' AS segment, 'click'::interaction_type AS event_type,
           'item-' || (random() * 20000)::int AS item_id, n % 20 AS position,
           NULL::numeric(18,6) AS value,
           jsonb_build_object('request_id', 'r' || n / 5, 'device', 'd' || n % 7) AS meta
      FROM generate_series(1, 300000) n,
           LATERAL (SELECT day + n * interval '0.25 s' AS at) t";

/// About 1 kB per row, with ten items each.
const EXPOSURES: &str = "
    SELECT md5((n % 20)::text)::uuid AS tenant_id, at AS occurred_at, gen_random_uuid() AS event_id,
           at AS received_at, gen_random_uuid() AS request_id,
           'surface-' || n % 5 AS surface, 'default' AS segment,
           sha256((random() * 50000)::int::text::bytea) AS user_key,
           encode(sha256(n::text::bytea), 'hex') AS session_id, NULL::text AS experiment_id,
           NULL::text AS experiment_variant, 'v1' AS algo_version, NULL::text AS config_etag,
           NULL::text AS rules_etag,
           jsonb_build_object('k', 10, 'context', jsonb_build_object('device', 'd' || n % 7)) AS request,
           jsonb_build_object('items', (
               SELECT jsonb_agg(jsonb_build_object(
                          'item_id', 'item-' || (random() * 20000)::int, 'rank', r,
                          'score', round(random()::numeric, 4)))
                 FROM generate_series(1, 10) r WHERE n > 0)) AS response,
           NULL::jsonb AS meta
      FROM generate_series(1, 60000) n,
           LATERAL (SELECT day + n * interval '1 s' AS at) t";

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::ephemeral(folder.path());
    options.durable = true;
    options.settings = vec![
        ("shared_buffers".into(), "256MB".into()),
        ("max_wal_size".into(), "4GB".into()),
    ];
    // `PrivatePostgres::start` blocks, so it runs outside the async threads.
    let server = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options).unwrap())
        .await
        .unwrap();
    let target = Target::parse(&server.url()).unwrap();
    let mut session = Session::open(&target, None).await.unwrap();
    migrate::migrate(&mut session.client).await.unwrap();

    println!(
        "PostgreSQL {}, one partition, seconds, medians of {ROUNDS}",
        server.version()
    );
    println!("table | rows | COPY, all indexes | COPY, key only | sealed afterwards | ratio");
    for (table, rows) in [
        (Table::Interactions, INTERACTIONS),
        (Table::Exposures, EXPOSURES),
    ] {
        let count = write_files(&session, table, rows).await;
        let mut seconds = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            seconds[0].push(copy(&mut session, table, IndexProfile::Full).await);
            seconds[1].push(copy(&mut session, table, IndexProfile::Deferred).await);
            let name = Interval::Day.range_of(NOON_US).partition_name(table);
            let started = Instant::now();
            let outcome = seal(
                &mut session,
                &Selection::Named(vec![name]),
                None,
                &Metrics::new(),
            )
            .await
            .unwrap();
            seconds[2].push(started.elapsed().as_secs_f64());
            assert!(outcome.failed.is_empty(), "{outcome:?}");
        }
        let [full, lean, sealed] = seconds.map(|mut runs| {
            runs.sort_by(f64::total_cmp);
            runs[runs.len() / 2]
        });
        println!(
            "{table} | {count} | {full:.2} | {lean:.2} | {sealed:.2} | while hot {:.1}, in all {:.1}",
            full / lean,
            full / (lean + sealed)
        );
    }
    drop(session);
    tokio::task::spawn_blocking(move || server.stop().unwrap())
        .await
        .unwrap();
}

/// Writes the rows to files of one batch each; returns the number of rows.
async fn write_files(session: &Session, table: Table, rows: &str) -> i64 {
    let client = &session.client;
    let day = Interval::Day.range_of(NOON_US).from_us / 1_000_000;
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS prepared;
             CREATE UNLOGGED TABLE prepared AS
             SELECT row_number() OVER (ORDER BY occurred_at) - 1 AS at, made.*
               FROM (SELECT to_timestamp({day}) AS day) AS d, LATERAL ({rows}) AS made;
             CREATE INDEX ON prepared (at); ANALYZE prepared"
        ))
        .await
        .unwrap();
    let count: i64 = client
        .query_one("SELECT count(*) FROM prepared", &[])
        .await
        .unwrap()
        .get(0);
    for (from, file) in files(count) {
        client
            .batch_execute(&format!(
                "DO $$ BEGIN EXECUTE format(
                     'COPY (SELECT {} FROM prepared WHERE at >= {from} AND at < {} ORDER BY at)
                        TO %L (FORMAT binary)',
                     current_setting('data_directory') || '/{table}-{file}'); END $$",
                columns(table),
                from + BATCH
            ))
            .await
            .unwrap();
    }
    count
}

fn files(count: i64) -> impl Iterator<Item = (usize, usize)> {
    let count = usize::try_from(count).unwrap();
    (0..count).step_by(BATCH).zip(0..)
}

fn columns(table: Table) -> String {
    let names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
    names.join(", ")
}

/// Copies all rows into a new partition, with one transaction per batch; returns the seconds.
async fn copy(session: &mut Session, table: Table, profile: IndexProfile) -> f64 {
    let range = Interval::Day.range_of(NOON_US);
    let name = range.partition_name(table);
    session
        .client
        .batch_execute(&format!("DROP TABLE IF EXISTS {name}"))
        .await
        .unwrap();
    ensure_with(&mut session.client, table, range, profile, "measurement")
        .await
        .unwrap();
    // The pages that the round before left to write do not count here.
    session.client.batch_execute("CHECKPOINT").await.unwrap();
    let count: i64 = session
        .client
        .query_one("SELECT count(*) FROM prepared", &[])
        .await
        .unwrap()
        .get(0);
    let directory: String = session
        .client
        .query_one("SELECT current_setting('data_directory')", &[])
        .await
        .unwrap()
        .get(0);
    let started = Instant::now();
    for (_, file) in files(count) {
        let sql = format!(
            "COPY {table} ({}) FROM '{directory}/{table}-{file}' (FORMAT binary)",
            columns(table)
        );
        session.client.batch_execute(&sql).await.unwrap();
    }
    started.elapsed().as_secs_f64()
}
