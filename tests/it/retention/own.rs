//! The service's own tables do not grow for ever, and their sums stay.

use std::time::Duration;

use recsys_ingest::accounts::retention::policy::Policy;
use recsys_ingest::accounts::retention::preview::{Due, preview};
use recsys_ingest::accounts::retention::run::retain;
use recsys_ingest::clock;

use super::words::differences;
use crate::harness::{Database, Process, Settings, click, one, texts};

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_of_the_quarantine_dead_spools_and_the_log_go_and_the_sums_stay() {
    let database = Database::with_tenants().await;
    let mut client = database.connect().await;
    let settings = Settings::new(&database);
    let (mut process, http) = Process::serve(&settings);
    let body = serde_json::json!([click("a")]);
    assert_eq!(http.post("/v1/interactions", &body).await.settled().0, 1);
    // A spool that is gone, with what it stored, a service that has long been idle, and a topic that
    // nothing comes through, whose writers are down.
    client
        .batch_execute(
            "INSERT INTO ingest_quarantine (tenant_id, table_name, event_id, occurred_at, quarantined_at, sqlstate, row)
             SELECT '00000000-0000-4000-8000-000000000001', 'interaction_events', gen_random_uuid(),
                    now(), now() - n * interval '1 day', '23514', '{}' FROM generate_series(0, 1500) AS n;
             INSERT INTO ingest_ledger (instance_id, stream, table_name, settled, stored, duplicates, quarantined, dropped)
             VALUES ('11111111-0000-4000-8000-000000000001', 1, 'interaction_events', 9, 0, 3, 1501, 0),
                    ('11111111-0000-4000-8000-000000000001', 17, 'interaction_events', 9, 0, 4, 2, 0),
                    ('11111111-0000-4000-8000-000000000001', 0, 'exposure_events', 9, 0, 0, -2, 5),
                    ('22222222-0000-4000-8000-000000000001', 0, 'table_of_the_future', 9, 0, 0, 0, 0);
             INSERT INTO ingest_ledger (instance_id, stream, table_name, settled, stored, duplicates, quarantined)
             VALUES ('33333333-0000-4000-8000-000000000001', 300, 'interaction_events', 9, 0, 0, 0);
             INSERT INTO ingest_holders (instance_id, lineage, epoch, opening, host, pid, directory, is_shared)
             SELECT instance_id, lineage, 1, gen_random_uuid(), 'h', 1, '', true FROM ingest_ledger WHERE stream = 300;
             UPDATE ingest_ledger SET updated_at = now() - interval '500 days';
             UPDATE ingest_holders SET since = now() - interval '500 days';
             INSERT INTO ingest_partition_log (table_name, partition_name, action, at)
             VALUES ('interaction_events', 'interaction_events_2019_01_01', 'create', now() - interval '500 days'),
                    ('interaction_events', 'interaction_events_2026_03_10', 'sealed', now() - interval '500 days')",
        )
        .await
        .unwrap();
    assert!(differences(&database).await.is_empty());
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    let policy = Policy {
        quarantine: days(100),
        accounts: days(400),
        ..Policy::default()
    };
    // What is shown before is what goes then.
    let shown = preview(&mut client, &policy, clock::now()).await.unwrap();
    let shown = shown.into_iter().map(|due| match due {
        Due::Rows { table, count, .. } => (table, count),
        Due::Partition(table, _) => panic!("a partition of {table}"),
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            ("ingest_quarantine", 1401),
            ("ingest_ledger", 3),
            ("ingest_partition_log", 1)
        ]
    );
    let report = retain(&mut client, &policy, clock::now()).await.unwrap();
    assert_eq!(
        (report.quarantined, report.spools, report.log_entries),
        (1401, 1, 1),
        "{report:?}"
    );
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(database.count("ingest_quarantine").await, 100);
    let sums = "SELECT concat_ws(' ', table_name, sum(duplicates), sum(quarantined), sum(dropped))
                  FROM ingest_ledger WHERE instance_id = '00000000-0000-0000-0000-000000000000'
                 GROUP BY table_name ORDER BY 1";
    assert_eq!(
        texts(&client, sums).await,
        ["exposure_events 0 -2 5", "interaction_events 7 1503 0"]
    );
    let held = "SELECT count(*) FROM ingest_ledger WHERE instance_id IN (SELECT instance_id FROM ingest_holders WHERE NOT is_shared)";
    assert!(
        one::<i64>(&client, held).await > 0,
        "an idle service keeps its rows"
    );
    let booked = "SELECT table_name || ' ' || row_count FROM ingest_removed_rows";
    assert_eq!(texts(&client, booked).await, ["ingest_quarantine 1401"]);
    settings.assert_verified();

    // Once it has stopped, its spool is as dead as the other.
    assert!(process.stop().success());
    let age = "UPDATE ingest_ledger SET updated_at = now() - interval '500 days'
                WHERE instance_id <> '00000000-0000-0000-0000-000000000000'";
    client.batch_execute(age).await.unwrap();
    let report = retain(&mut client, &policy, clock::now()).await.unwrap();
    assert_eq!(report.spools, 1, "{report:?}");
    let topics = "SELECT settled FROM ingest_ledger WHERE stream = 300";
    assert_eq!(
        one::<i64>(&client, topics).await,
        9,
        "a topic is read on from there"
    );
    assert!(differences(&database).await.is_empty());
    // If it comes back all the same, what is in it is stored.
    let (mut process, http) = Process::serve(&settings);
    let body = serde_json::json!([click("a"), click("b")]);
    assert_eq!(
        http.post("/v1/interactions", &body).await.settled(),
        (1, 1, 0, 0)
    );
    assert!(process.stop().success());
    assert!(differences(&database).await.is_empty());
}
