//! Promise: a database that the suite created keeps working, and takes the service's rows.

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::catalog::list;
use recsys_ingest::partitions::create::{Ensured, ensure};
use recsys_ingest::postgres::migrate::{Report, migrate};

use super::words::{TENANT, adopted, day};
use crate::harness::{Database, one};

#[tokio::test]
async fn a_suite_database_is_adopted_with_its_rows_keys_and_indexes() {
    let (database, report) = adopted().await;
    assert_eq!(report.adopted, Table::OF_SUITE);
    let mut client = database.connect().await;
    let rows: i64 = one(
        &client,
        "SELECT count(*) FROM exposure_events_default WHERE event_id IS NULL",
    )
    .await;
    assert_eq!(rows, 4);
    let indexes: i64 = one(
        &client,
        "SELECT count(*) FROM pg_index WHERE indrelid = 'exposure_events'::regclass",
    )
    .await;
    assert_eq!(indexes, 8, "the suite's seven and our unique one");
    let history: i64 = one(&client, "SELECT count(*) FROM schema_migrations").await;
    assert_eq!(history, 1);
    let again = migrate(&mut client).await.unwrap();
    assert_eq!(
        again,
        Report {
            applied: vec![],
            adopted: Table::OF_SUITE.to_vec()
        }
    );
}

#[tokio::test]
async fn copy_with_a_list_of_columns_and_a_replay_work_on_both_shapes() {
    let fresh = Database::migrated().await;
    let (adopted, _) = adopted().await;
    for database in [fresh, adopted] {
        let mut client = database.connect().await;
        ensure(&mut client, Table::Interactions, day("2026-03-12"), "test")
            .await
            .unwrap();
        let copy = "COPY interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id) FROM STDIN";
        let line = format!(
            "{TENANT}\t2026-03-12 10:00:00+00\t00000000-0000-4000-8000-00000000000a\t2026-03-12 10:00:01+00\tview\ta\n"
        );
        for expect_new in [true, false] {
            let sink = client.copy_in::<_, bytes::Bytes>(copy).await.unwrap();
            let mut sink = std::pin::pin!(sink);
            futures_util::SinkExt::send(&mut sink, line.clone().into())
                .await
                .unwrap();
            let outcome = sink.finish().await;
            match outcome {
                Ok(rows) => assert!(expect_new && rows == 1),
                Err(error) => assert!(
                    !expect_new && error.code().unwrap().code() == "23505",
                    "{error:?}"
                ),
            }
        }
        let merged = client
            .execute(
                "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
                 SELECT tenant_id, occurred_at, event_id, received_at, event_type, item_id FROM interaction_events
                 WHERE event_id IS NOT NULL ON CONFLICT DO NOTHING",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(merged, 0);
    }
}

#[tokio::test]
async fn rows_in_the_default_partition_move_into_the_partition_that_is_made_for_them() {
    let (database, _) = adopted().await;
    let mut client = database.connect().await;
    let ensured = ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap();
    let Ensured::Created(created) = ensured else {
        panic!("{ensured:?}")
    };
    assert_eq!(
        (created.name.as_str(), created.moved_rows),
        ("exposure_events_2026_03_10", 3)
    );
    let counts = "SELECT (SELECT count(*) FROM exposure_events) || ' ' || (SELECT count(*) FROM exposure_events_default)
         || ' ' || (SELECT count(*) FROM exposure_events_2026_03_10)";
    let counts: String = one(&client, counts).await;
    assert_eq!(counts, "4 1 3");
    let reason: String = one(&client, "SELECT reason FROM ingest_partition_log").await;
    assert_eq!(reason, "test; moved 3 rows out of exposure_events_default");
    // The foreign key came with ATTACH, the sequence with LIKE.
    let refused = client
        .execute(
            "INSERT INTO exposure_events (tenant_id, occurred_at, request_id, surface, segment, algo_version, request, response)
             VALUES (gen_random_uuid(), '2026-03-10', gen_random_uuid(), 's', 's', 'v', '{}', '{}')",
            &[],
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23503");
    let ids: bool = one(
        &client,
        "SELECT count(DISTINCT id) = 4 FROM exposure_events",
    )
    .await;
    assert!(ids);
    let infos = list(&mut client, Table::Exposures).await.unwrap();
    assert_eq!(
        infos.iter().map(|i| i.is_default).collect::<Vec<_>>(),
        [false, true]
    );
}
