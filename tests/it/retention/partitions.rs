//! Partitions are removed in spite of readers, DEFAULT partitions and interruptions.

use recsys_ingest::accounts::retention::policy::Policy;
use recsys_ingest::accounts::retention::run::retain;

use super::words::{differences, four_days, has, keep, names, store, time};
use crate::harness::{Database, one, texts};

const OLD: &str = "interaction_events_2026_03_08";
const LEFT: [&str; 2] = [
    "interaction_events_2026_03_10",
    "interaction_events_2026_03_11",
];

/// Ninety days after noon of 10 March.
const NOW: &str = "2026-06-08T12:00:00Z";

#[tokio::test]
async fn whole_partitions_go_with_and_without_a_default_partition_and_the_accounts_balance() {
    for (has_default, keeps_detached) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let case = format!("default: {has_default}, keep: {keeps_detached}");
        let database = Database::migrated().await;
        let mut client = four_days(&database).await;
        if has_default {
            client
                .batch_execute("CREATE TABLE rest PARTITION OF interaction_events DEFAULT")
                .await
                .unwrap();
            store(&client, "2026-02-01", 7).await;
            store(&client, "2026-03-20", 1).await;
        }
        let policy = Policy {
            keeps_detached,
            ..keep(90)
        };
        let report = retain(&mut client, &policy, time(NOW)).await.unwrap();
        assert!(report.failed.is_empty(), "{case}: {report:?}");
        let removed: Vec<_> = report
            .removed
            .iter()
            .map(|one| (one.name.as_str(), one.rows, one.is_kept))
            .collect();
        assert_eq!(
            removed,
            [
                (OLD, 1, keeps_detached),
                ("interaction_events_2026_03_09", 2, keeps_detached)
            ],
            "{case}"
        );
        assert_eq!(
            report.default_rows,
            if has_default { 7 } else { 0 },
            "{case}"
        );
        let mut left = LEFT.to_vec();
        if has_default {
            left.push("rest");
        }
        assert_eq!(names(&client).await, left, "{case}");
        assert_eq!(has(&client, OLD).await, keeps_detached, "{case}");
        let booked = texts(
            &client,
            "SELECT concat_ws(' ', kind, row_count, range_from::date) FROM ingest_removed_rows ORDER BY id",
        )
        .await;
        let mut expected = vec!["retention 1 2026-03-08", "retention 2 2026-03-09"];
        if has_default {
            expected.push("retention 7");
        }
        assert_eq!(booked, expected, "{case}");
        let logged = "SELECT string_agg(action || ' ' || partition_name, ', ' ORDER BY id)
                        FROM ingest_partition_log WHERE action IN ('drop', 'detach')";
        let action = if keeps_detached { "detach" } else { "drop" };
        assert_eq!(
            one::<String>(&client, logged).await,
            format!("{action} {OLD}, {action} interaction_events_2026_03_09"),
            "{case}"
        );
        let kept_from = "SELECT kept_from::text FROM ingest_retention";
        assert_eq!(
            one::<String>(&client, kept_from).await,
            "2026-03-10 00:00:00+00"
        );
        assert!(differences(&database).await.is_empty(), "{case}");
        let again = retain(&mut client, &policy, time(NOW)).await.unwrap();
        assert!(
            again.removed.is_empty() && again.default_rows == 0,
            "{case}: {again:?}"
        );
        // What is kept now begins no earlier if it is to be kept longer.
        retain(&mut client, &keep(900), time(NOW)).await.unwrap();
        assert_eq!(
            one::<String>(&client, kept_from).await,
            "2026-03-10 00:00:00+00"
        );
    }
}

#[tokio::test]
async fn what_was_interrupted_is_finished_and_balances_in_between() {
    let announce = format!(
        "INSERT INTO ingest_removed_rows (table_name, kind, reason, relation, relation_oid, range_from, range_to)
         VALUES ('interaction_events', 'retention', 'test', 'public.{OLD}', '{OLD}'::regclass,
                 '2026-03-08', '2026-03-09')"
    );
    let detach = format!("ALTER TABLE interaction_events DETACH PARTITION {OLD}");
    for (case, statements, balances) in [
        ("announced", vec![], true),
        ("detaching", vec![format!("{detach} CONCURRENTLY")], true),
        ("detached", vec![detach.clone()], true),
        (
            "dropped",
            vec![detach.clone(), format!("DROP TABLE {OLD}")],
            false,
        ),
        // A table of that name that is another one is not ours to drop.
        (
            "replaced",
            vec![
                detach.clone(),
                format!("DROP TABLE {OLD}"),
                format!("CREATE TABLE {OLD} (theirs int)"),
            ],
            false,
        ),
    ] {
        let database = Database::migrated().await;
        let mut client = four_days(&database).await;
        client.batch_execute(&announce).await.unwrap();
        let reader = database.connect().await;
        if case == "detaching" {
            // An old transaction keeps it from ending.
            reader
                .batch_execute("BEGIN; SELECT count(*) FROM interaction_events")
                .await
                .unwrap();
            client
                .batch_execute("SET lock_timeout = '300ms'")
                .await
                .unwrap();
            let stuck = client.batch_execute(&statements[0]).await;
            assert!(stuck.is_err());
            client.batch_execute("RESET lock_timeout").await.unwrap();
        } else {
            for statement in &statements {
                client.batch_execute(statement).await.unwrap();
            }
        }
        assert_eq!(differences(&database).await.is_empty(), balances, "{case}");
        reader.batch_execute("ROLLBACK").await.unwrap();
        let report = retain(&mut client, &keep(90), time(NOW)).await.unwrap();
        assert!(report.failed.is_empty(), "{case}: {report:?}");
        assert_eq!(names(&client).await, LEFT, "{case}");
        assert_eq!(has(&client, OLD).await, case == "replaced", "{case}");
        let open = "SELECT count(*) FROM ingest_removed_rows WHERE row_count IS NULL";
        assert_eq!(one::<i64>(&client, open).await, 0, "{case}");
        let missing: Vec<_> = differences(&database)
            .await
            .iter()
            .map(|check| check.missing())
            .collect();
        assert_eq!(missing, if balances { vec![] } else { vec![1] }, "{case}");
    }
}

#[tokio::test]
async fn an_announcement_is_taken_back_if_rows_are_to_be_kept_after_all() {
    let database = Database::migrated().await;
    let mut client = four_days(&database).await;
    client
        .batch_execute(&format!(
            "INSERT INTO ingest_removed_rows (table_name, kind, reason, relation, relation_oid)
             VALUES ('interaction_events', 'retention', 'test', 'public.{OLD}', '{OLD}'::regclass)"
        ))
        .await
        .unwrap();
    let report = retain(&mut client, &Policy::default(), time(NOW))
        .await
        .unwrap();
    assert!(
        report.removed.is_empty() && report.failed.is_empty(),
        "{report:?}"
    );
    assert_eq!(names(&client).await.len(), 4);
    assert_eq!(database.count("ingest_removed_rows").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_does_it_and_a_long_reader_holds_up_nobody_else() {
    let database = Database::migrated().await;
    let client = four_days(&database).await;
    client
        .batch_execute("CREATE TABLE rest PARTITION OF interaction_events DEFAULT")
        .await
        .unwrap();
    let reader = database.connect().await;
    reader
        .batch_execute("BEGIN; SELECT count(*) FROM interaction_events")
        .await
        .unwrap();
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let database = database.clone();
        runs.spawn(async move {
            let mut client = database.connect().await;
            retain(&mut client, &keep(90), time(NOW)).await.unwrap()
        });
    }
    // While one of them tries for the lock, rows come in.
    for _ in 0..10 {
        store(&client, "2026-03-11", 1).await;
    }
    reader.batch_execute("COMMIT").await.unwrap();
    let reports = runs.join_all().await;
    let removed: usize = reports.iter().map(|report| report.removed.len()).sum();
    assert_eq!(removed, 2, "{reports:?}");
    assert!(differences(&database).await.is_empty());
}
