//! Promise: creating a partition blocks no reader or writer, and any number of instances may try
//! at once.

use std::time::{Duration, Instant};

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::catalog::read_coverage;
use recsys_ingest::partitions::create::ensure;
use recsys_ingest::partitions::error::Error;
use recsys_ingest::partitions::range::Interval;

use super::words::{INTERACTION, adopted, at, day, names};
use crate::harness::{Database, one, texts};

#[tokio::test]
async fn a_long_reading_transaction_and_a_new_partition_do_not_wait_for_each_other() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    ensure(&mut client, Table::Interactions, day("2026-03-10"), "test")
        .await
        .unwrap();

    // An open transaction that has read and written: `ensure` does not wait for it.
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    reading
        .query("SELECT * FROM interaction_events", &[])
        .await
        .unwrap();
    reading
        .execute(INTERACTION, &[&"2026-03-10 10:00:00+00"])
        .await
        .unwrap();
    let start = Instant::now();
    ensure(&mut client, Table::Interactions, day("2026-03-11"), "test")
        .await
        .unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );

    // An `ensure` that is held up after ATTACH: readers and writers do not wait for it.
    let mut blocker = database.connect().await;
    let blocking = blocker.transaction().await.unwrap();
    blocking
        .batch_execute("LOCK TABLE ingest_partition_log IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let pid: i32 = one(&client, "SELECT pg_backend_pid()").await;
    let held = tokio::spawn(async move {
        ensure(&mut client, Table::Interactions, day("2026-03-12"), "test").await
    });
    let watcher = database.connect().await;
    let locks = format!(
        "SELECT mode FROM pg_locks WHERE pid = {pid} AND relation = 'interaction_events'::regclass AND granted ORDER BY 1"
    );
    let waiting = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)");
    while !one::<bool>(&watcher, &waiting).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        texts(&watcher, &locks).await,
        ["AccessShareLock", "ShareUpdateExclusiveLock"]
    );
    watcher
        .batch_execute("SET lock_timeout = '500ms'")
        .await
        .unwrap();
    let rows: i64 = one(&watcher, "SELECT count(*) FROM interaction_events").await;
    assert_eq!(rows, 0);
    watcher
        .execute(INTERACTION, &[&"2026-03-11 10:00:00+00"])
        .await
        .unwrap();
    reading
        .execute(INTERACTION, &[&"2026-03-10 11:00:00+00"])
        .await
        .unwrap();
    blocking.rollback().await.unwrap();
    assert_eq!(held.await.unwrap().unwrap().created().len(), 1);
    reading.commit().await.unwrap();
}

#[tokio::test]
async fn a_table_that_stays_locked_is_busy_and_nothing_is_left_behind() {
    let database = Database::migrated().await;
    let mut other = database.connect().await;
    let tx = other.transaction().await.unwrap();
    tx.batch_execute("LOCK TABLE ONLY exposure_events IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut client = database.connect().await;
    let error = ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Busy {
                table: Table::Exposures,
                ..
            }
        ),
        "{error:?}"
    );
    tx.rollback().await.unwrap();
    ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap();
}

#[tokio::test]
async fn instances_that_race_for_the_same_and_neighbouring_ranges_make_each_once() {
    for count in [2, 8] {
        for is_adopted in [false, true] {
            let database = if is_adopted {
                adopted().await.0
            } else {
                Database::migrated().await
            };
            let mut races = tokio::task::JoinSet::new();
            for _ in 0..count {
                let mut client = database.connect().await;
                races.spawn(async move {
                    let mut made = 0;
                    for date in ["2026-03-10", "2026-03-11", "2026-03-12"] {
                        made += ensure(&mut client, Table::Exposures, day(date), "race")
                            .await
                            .unwrap()
                            .created()
                            .len();
                    }
                    made
                });
            }
            assert_eq!(races.join_all().await.into_iter().sum::<usize>(), 3);
            let mut client = database.connect().await;
            let mut expected = vec![
                "exposure_events_2026_03_10",
                "exposure_events_2026_03_11",
                "exposure_events_2026_03_12",
            ];
            if is_adopted {
                expected.push("exposure_events_default");
            }
            assert_eq!(names(&mut client, Table::Exposures).await, expected);
        }
    }
}

#[tokio::test]
async fn a_race_with_a_tool_that_takes_none_of_our_locks_ends_well() {
    let database = Database::migrated().await;
    for month in 1..=6 {
        let range = Interval::Month.range_of(at(&format!("2026-{month:02}-10T00:00:00Z")));
        let (mut client, tool) = (database.connect().await, database.connect().await);
        let sql = format!(
            "SELECT ingest_ensure_monthly_partitions('exposure_events', '2026-{month:02}-01', 1)"
        );
        let (ours, _theirs) = tokio::join!(
            ensure(&mut client, Table::Exposures, range, "race"),
            tool.batch_execute(&sql),
        );
        ours.unwrap();
        assert!(
            read_coverage(&mut client, Table::Exposures)
                .await
                .unwrap()
                .gaps(range)
                .is_empty()
        );
    }
    let mut client = database.connect().await;
    assert_eq!(names(&mut client, Table::Exposures).await.len(), 6);
}
