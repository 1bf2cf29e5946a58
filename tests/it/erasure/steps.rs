//! An erasure of many steps finds each row, with any indexes of the partition.

use std::process::Command;

use serde_json::json;

use super::{json_of, key, said, users};
use crate::harness::{DEMO, Database, one};
use crate::schema::words::day;

const PARTITION: &str = "interaction_events_2026_03_10";

/// Four rows in a block.
const ROWS: i64 = 5_000;

/// The rows of the user: in the first block, in the last, and throughout. Half of those in between
/// are later than the erasure.
const THEIRS: &str = "n % 7 = 0 OR n IN (1, 5000)";
const BEFORE: &str = "2026-03-10T12:00:00Z";

async fn filled() -> Database {
    let database = Database::with_tenants().await;
    let mut client = database.connect().await;
    let table = recsys_ingest::event::table::Table::Interactions;
    recsys_ingest::partitions::create::ensure(&mut client, table, day("2026-03-10"), "test")
        .await
        .unwrap();
    let sql = format!(
        "INSERT INTO interaction_events
             (tenant_id, occurred_at, event_id, received_at, user_key, event_type, item_id, meta)
         SELECT '{DEMO}', timestamptz '2026-03-10 00:00:00+00' + interval '1 s' * n
                    + CASE WHEN n % 14 = 0 THEN interval '20 h' ELSE interval '0' END,
                gen_random_uuid(), now(), CASE WHEN {THEIRS} THEN '\\x{}'::bytea ELSE sha256(n::text::bytea) END,
                'view', 'item ' || n, jsonb_build_object('n', n, 'pad', repeat('x', 1500))
           FROM generate_series(1, {ROWS}) AS n",
        key("ann")
    );
    client.batch_execute(&sql).await.unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_of_many_steps_is_erased_to_the_last_row_and_nothing_else() {
    let of_user: Vec<i64> = (1..=ROWS)
        .filter(|n| n % 7 == 0 || [1, ROWS].contains(n))
        .collect();
    let erased = i64::try_from(of_user.iter().filter(|n| *n % 14 != 0).count()).unwrap();
    let later = i64::try_from(of_user.len()).unwrap() - erased;
    for (is_sealed, keeps_rows) in [(false, false), (false, true), (true, false), (true, true)] {
        let case = format!("sealed: {is_sealed}, keep: {keeps_rows}");
        let database = filled().await;
        let client = database.connect().await;
        if is_sealed {
            let sealing = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
                .args(["partitions", "seal", PARTITION])
                .args(["--database-url", database.url()])
                .output()
                .unwrap();
            assert!(sealing.status.success(), "{}", said(&sealing));
        }
        let blocks = format!("SELECT pg_relation_size('{PARTITION}') / 8192");
        assert!(one::<i64>(&client, &blocks).await > 1_000, "{case}");
        let others = format!(
            "SELECT md5(string_agg(i::text, ',' ORDER BY event_id)) FROM interaction_events AS i
              WHERE user_key IS NOT NULL AND user_key <> '\\x{}'",
            key("ann")
        );
        let before: String = one(&client, &others).await;
        let mut arguments = vec!["erase", "--user-id", "ann", "--before", BEFORE, "--json"];
        if keeps_rows {
            arguments.push("--keep-rows");
        }
        let dry = json_of(&users(
            &database,
            &[&arguments[..], &["--dry-run"]].concat(),
        ));
        let counts = [
            &dry["users"][0]["interaction_events"],
            &dry["users"][0]["later"],
        ];
        assert_eq!(counts, [&json!(erased), &json!(later)], "{case}: {dry}");
        let done = json_of(&users(&database, &arguments));
        assert_eq!(
            done["users"][0]["interaction_events"], erased,
            "{case}: {done}"
        );
        assert_eq!(one::<String>(&client, &others).await, before, "{case}");
        let left =
            |user: &str| format!("SELECT count(*) FROM interaction_events WHERE user_key {user}");
        let theirs = left(&format!("= '\\x{}'", key("ann")));
        assert_eq!(one::<i64>(&client, &theirs).await, later, "{case}");
        let untied: i64 = one(&client, &left("IS NULL")).await;
        assert_eq!(untied, if keeps_rows { erased } else { 0 }, "{case}");
        if keeps_rows {
            // Each step is one transaction.
            let steps = format!(
                "SELECT count(DISTINCT xmin::text) FROM {PARTITION} WHERE user_key IS NULL"
            );
            assert!(one::<i64>(&client, &steps).await >= 3, "{case}");
        } else {
            let booked =
                "SELECT sum(row_count)::bigint FROM ingest_removed_rows WHERE kind = 'erasure'";
            assert_eq!(one::<i64>(&client, booked).await, erased, "{case}");
        }
    }
}
