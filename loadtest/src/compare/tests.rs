//! Every way without the service, against a real Postgres.

use jiff::Timestamp;
use recsys_ingest::event::table::Table as Target;
use recsys_ingest::event::time::Micros;

use super::copy;
use super::rows::{self, Rows, columns, suite_columns};
use super::sample::Sample;
use super::stage::{SALT, Setup, Stage};
use super::suite;
use super::workload::{Workload, day_of};
use crate::generate::settings::Table;

const EVENTS: u32 = 12_345;

async fn stage(now: Timestamp, dir: &std::path::Path) -> Stage {
    // It is looked for and not started.
    let service = std::env::current_exe().unwrap();
    Stage::set(&Setup {
        dir,
        pg_bin: None,
        service: Some(&service),
        arguments: &[],
        now: Micros(now.as_microsecond()),
        migrates_itself: false,
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_loads_the_same_rows_and_the_suites_own_tables_take_them() {
    let now = Timestamp::now();
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(now, dir.path()).await;
    let client = &stage.admin.client;
    client.batch_execute(suite::CREATE).await.unwrap();
    for (table, target) in [
        (Table::Interactions, Target::Interactions),
        (Table::Exposures, Target::Exposures),
    ] {
        let day_us = day_of(now).unwrap();
        let settings = Workload::of_one_day(1, table, EVENTS, day_us, "k").in_bodies_of(1000);
        let received_at = Micros(now.as_microsecond());
        let (count, blocks) =
            rows::encode(&settings, target, stage.tenant, SALT, received_at).unwrap();
        assert_eq!((count, blocks.len()), (EVENTS.into(), 2));
        copy::copy(&stage.admin, target, &blocks).await.unwrap();
        let expected = rows::digest(client, target).await.unwrap();
        assert!(expected.starts_with("12345 rows"), "{expected}");
        let rows = Rows::loaded(client, target, count, blocks, stage.dir())
            .await
            .unwrap();

        let name = target.as_str();
        stage.clear(name).await.unwrap();
        let columns = columns(target);
        copy::text(&stage, name, &columns, &rows.text)
            .await
            .unwrap();
        assert_eq!(rows::digest(client, target).await.unwrap(), expected);

        stage.clear(name).await.unwrap();
        let meters = stage.meters(None).await.unwrap();
        copy::binary(&stage, &rows, 2).await.unwrap();
        let mut sample = Sample::default();
        stage.read(&meters, &mut sample).await.unwrap();
        assert!(sample.wal_bytes > Some(100.0 * f64::from(EVENTS)));
        assert!(sample.postgres_cpu > Some(0.0));
        assert_eq!(rows::digest(client, target).await.unwrap(), expected);

        let into = suite::name(target);
        let columns = suite_columns(target);
        copy::text(&stage, &into, &columns, &rows.suite_text)
            .await
            .unwrap();
        assert_eq!(stage.count(&into).await.unwrap(), count);
    }
    stage.strike().await.unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
