//! Promise: each row has a partition; the service creates it from what the catalog says.

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::catalog::{list, read_coverage};
use recsys_ingest::partitions::coverage::Coverage;
use recsys_ingest::partitions::create::{Ensured, ensure, ensure_ahead};
use recsys_ingest::partitions::error::Error;
use recsys_ingest::partitions::range::{Interval, Range};

use super::words::{INTERACTION, at, day};
use crate::harness::{Database, one};

#[tokio::test]
async fn a_partition_is_made_once_with_its_key_attached_and_no_check_left_behind() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let range = day("2026-03-10");
    assert!(
        !read_coverage(&mut client, Table::Interactions)
            .await
            .unwrap()
            .covers(range.from_us)
    );
    let ensured = ensure(
        &mut client,
        Table::Interactions,
        range,
        "first row of the day",
    )
    .await
    .unwrap();
    assert_eq!(ensured.created()[0].name, "interaction_events_2026_03_10");
    assert_eq!(
        ensure(&mut client, Table::Interactions, range, "again")
            .await
            .unwrap(),
        Ensured::Existed
    );
    let coverage = read_coverage(&mut client, Table::Interactions)
        .await
        .unwrap();
    assert!(coverage.covers(range.from_us) && coverage.covers(range.to_us - 1));
    assert!(!coverage.covers(range.from_us - 1) && !coverage.covers(range.to_us));
    for instant in ["2026-03-10 00:00:00+00", "2026-03-10 23:59:59.999999+00"] {
        client.execute(INTERACTION, &[&instant]).await.unwrap();
    }
    client
        .execute(INTERACTION, &[&"2026-03-11 00:00:00+00"])
        .await
        .unwrap_err();

    let attached: i64 = one(
        &client,
        "SELECT count(*) FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indexrelid
         WHERE x.indrelid = 'interaction_events_2026_03_10'::regclass AND x.indisprimary",
    )
    .await;
    assert_eq!(attached, 1);
    let indexes: i64 = one(
        &client,
        "SELECT count(*) FROM pg_index WHERE indrelid = 'interaction_events_2026_03_10'::regclass",
    )
    .await;
    assert_eq!(indexes, 1, "the parent's key was matched, not built again");
    let checks: i64 =
        one(&client, "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = 'interaction_events_2026_03_10'::regclass").await;
    assert_eq!(checks, 0);
    let logged: String = one(
        &client,
        "SELECT concat_ws('|', table_name, partition_name, action, range_to - range_from, instance, reason) FROM ingest_partition_log",
    )
    .await;
    assert_eq!(
        logged,
        "interaction_events|interaction_events_2026_03_10|create|1 day|integration test|first row of the day"
    );
    let compression = "SELECT count(DISTINCT attcompression) FROM pg_attribute WHERE attname = 'meta'
         AND attrelid IN ('interaction_events'::regclass, 'interaction_events_2026_03_10'::regclass)";
    let compression: i64 = one(&client, compression).await;
    assert_eq!(compression, 1);
}

#[tokio::test]
async fn bounds_are_read_right_whatever_the_sessions_zone_and_date_style() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute("CREATE TABLE early PARTITION OF exposure_events FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00')")
        .await
        .unwrap();
    ensure(&mut client, Table::Exposures, day("2026-03-29"), "test")
        .await
        .unwrap();
    let expected = Coverage::of([
        Range {
            from_us: i64::MIN,
            to_us: at("2020-01-01T00:00:00Z"),
        },
        day("2026-03-29"),
    ]);
    client
        .batch_execute(
            "CREATE TABLE ancient PARTITION OF interaction_events
                 FOR VALUES FROM ('-infinity') TO ('0044-03-15 12:30:00.000001+00 BC');
             CREATE TABLE far PARTITION OF interaction_events
                 FOR VALUES FROM ('12000-01-01 00:00:00+00') TO ('infinity')",
        )
        .await
        .unwrap();
    let far = Coverage::of([
        Range {
            from_us: i64::MIN,
            to_us: -63_517_778_999_999_999,
        },
        Range {
            from_us: 316_516_204_800_000_000,
            to_us: i64::MAX,
        },
    ]);
    for style in ["SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"] {
        for zone in ["Asia/Kolkata", "Europe/Berlin", "America/St_Johns"] {
            client
                .batch_execute(&format!(
                    "SET DateStyle = '{style}'; SET TimeZone = '{zone}'"
                ))
                .await
                .unwrap();
            assert_eq!(
                read_coverage(&mut client, Table::Exposures).await.unwrap(),
                expected,
                "{style} {zone}"
            );
            assert_eq!(
                read_coverage(&mut client, Table::Interactions)
                    .await
                    .unwrap(),
                far,
                "{style} {zone}"
            );
            let made = ensure(&mut client, Table::Exposures, day("2026-03-29"), "test")
                .await
                .unwrap();
            assert_eq!(made, Ensured::Existed);
            let still: String = one(&client, "SHOW TimeZone").await;
            assert_eq!(still, zone);
        }
    }
    let infos = list(&mut client, Table::Exposures).await.unwrap();
    assert_eq!((infos[0].name.as_str(), infos[0].from_us), ("early", None));
}

#[tokio::test]
async fn only_the_gaps_between_an_operators_partitions_are_filled() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE odd PARTITION OF exposure_events
                 FOR VALUES FROM ('2026-03-09 18:00:00+00') TO ('2026-03-10 06:00:00+00');
             CREATE TABLE odder PARTITION OF exposure_events
                 FOR VALUES FROM ('2026-03-10 12:00:00+00') TO ('2026-03-10 13:30:00+00')",
        )
        .await
        .unwrap();
    let range = day("2026-03-10");
    let ensured = ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap();
    assert!(matches!(ensured, Ensured::Filled(_)));
    let made: Vec<&str> = ensured.created().iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        made,
        [
            "exposure_events_2026_03_10_060000",
            "exposure_events_2026_03_10_133000"
        ]
    );
    assert!(
        read_coverage(&mut client, Table::Exposures)
            .await
            .unwrap()
            .gaps(range)
            .is_empty()
    );

    client
        .batch_execute("CREATE TABLE april PARTITION OF exposure_events FOR VALUES FROM ('2026-04-01+00') TO ('2026-05-01+00')")
        .await
        .unwrap();
    assert_eq!(
        ensure(&mut client, Table::Exposures, day("2026-04-15"), "test")
            .await
            .unwrap(),
        Ensured::Existed
    );
}

#[tokio::test]
async fn a_name_that_something_else_has_gets_a_number() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE exposure_events_2026_03_10 (kept text);
             CREATE TABLE exposure_events_2026_03_11 PARTITION OF exposure_events
                 FOR VALUES FROM ('2025-01-01+00') TO ('2025-01-02+00');
             CREATE VIEW exposure_events_2026_03_12 AS SELECT 1;
             CREATE TYPE exposure_events_2026_03_13 AS ENUM ('a')",
        )
        .await
        .unwrap();
    for date in ["2026-03-10", "2026-03-11", "2026-03-12", "2026-03-13"] {
        let ensured = ensure(&mut client, Table::Exposures, day(date), "test")
            .await
            .unwrap();
        assert_eq!(
            ensured.created()[0].name,
            format!("exposure_events_{}_2", date.replace('-', "_"))
        );
    }
}

#[tokio::test]
async fn partitions_are_made_ahead_and_only_where_they_are_missing() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let now = at("2026-12-30T15:00:00Z");
    ensure(&mut client, Table::Interactions, day("2026-12-31"), "test")
        .await
        .unwrap();
    let made = ensure_ahead(&mut client, Table::Interactions, Interval::Day, now, 3)
        .await
        .unwrap();
    let made: Vec<&str> = made.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        made,
        [
            "interaction_events_2026_12_30",
            "interaction_events_2027_01_01",
            "interaction_events_2027_01_02"
        ]
    );
    assert!(
        ensure_ahead(&mut client, Table::Interactions, Interval::Day, now, 3)
            .await
            .unwrap()
            .is_empty()
    );
    // A new interval keeps the partitions that exist and fills up the rest of the month.
    let made = ensure_ahead(&mut client, Table::Interactions, Interval::Month, now, 1)
        .await
        .unwrap();
    assert_eq!(made.len(), 2);
    let coverage = read_coverage(&mut client, Table::Interactions)
        .await
        .unwrap();
    assert_eq!(coverage.end_from(now), at("2027-02-01T00:00:00Z"));
}

#[tokio::test]
async fn a_half_detached_partition_does_not_count_and_is_named() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let range = day("2026-03-10");
    ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap();
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    reading
        .query("SELECT count(*) FROM exposure_events", &[])
        .await
        .unwrap();
    let janitor = database.connect().await;
    janitor
        .batch_execute("SET lock_timeout = '200ms'")
        .await
        .unwrap();
    janitor
        .batch_execute(
            "ALTER TABLE exposure_events DETACH PARTITION exposure_events_2026_03_10 CONCURRENTLY",
        )
        .await
        .unwrap_err();
    reading.rollback().await.unwrap();
    assert!(
        !read_coverage(&mut client, Table::Exposures)
            .await
            .unwrap()
            .covers(range.from_us)
    );
    let error = ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Detaching { partition, .. } if partition == "exposure_events_2026_03_10"),
        "{error:?}"
    );
    janitor
        .batch_execute(
            "ALTER TABLE exposure_events DETACH PARTITION exposure_events_2026_03_10 FINALIZE",
        )
        .await
        .unwrap();
    let ensured = ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap();
    assert_eq!(ensured.created()[0].name, "exposure_events_2026_03_10_2");
}

#[tokio::test]
async fn a_table_that_is_missing_or_plain_is_told_apart() {
    let database = Database::empty().await;
    let mut client = database.connect().await;
    let missing = read_coverage(&mut client, Table::Exposures)
        .await
        .unwrap_err();
    assert!(
        missing.to_string().contains("nowhere to be found"),
        "{missing}"
    );
    client
        .batch_execute("CREATE TABLE exposure_events (occurred_at timestamptz)")
        .await
        .unwrap();
    let plain = ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap_err();
    assert!(
        matches!(&plain, Error::NotPartitioned { found, .. } if found == "a plain table"),
        "{plain}"
    );
}

/// Another instance removes partitions while this one reads them.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_goes_while_partitions_are_read_is_left_out() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let days = ["2026-03-10", "2026-03-11", "2026-03-12", "2026-03-13"].map(day);
    for range in days {
        ensure(&mut client, Table::Interactions, range, "first row")
            .await
            .unwrap();
    }
    let mut reader = database.connect().await;
    let reading = tokio::spawn(async move {
        for _ in 0..1500 {
            let coverage = read_coverage(&mut reader, Table::Interactions).await;
            assert!(coverage.unwrap().covers(day("2026-03-10").from_us));
            // Postgres may refuse to describe an index that goes; then it says so.
            drop(list(&mut reader, Table::Interactions).await);
        }
    });
    while !reading.is_finished() {
        // The first one stays.
        client
            .batch_execute(
                "DROP TABLE interaction_events_2026_03_11, interaction_events_2026_03_12,
                            interaction_events_2026_03_13",
            )
            .await
            .unwrap();
        for range in &days[1..] {
            ensure(&mut client, Table::Interactions, *range, "first row")
                .await
                .unwrap();
        }
    }
    reading.await.unwrap();
}
