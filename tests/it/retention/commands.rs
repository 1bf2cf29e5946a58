//! The commands of who operates the tables.

use std::process::{Command, Output};

use serde_json::Value;

use super::words::{differences, four_days, names, store};
use crate::harness::{Database, Process, Settings, click, one, texts};

fn program(database: &Database, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .args(["--database-url", database.url()])
        .output()
        .unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn retain_shows_what_would_go_then_removes_it_and_refuses_what_is_still_accepted() {
    let database = Database::migrated().await;
    let client = four_days(&database).await;
    client
        .batch_execute("CREATE TABLE rest PARTITION OF interaction_events DEFAULT")
        .await
        .unwrap();
    for date in ["2025-01-01", "2025-12-01"] {
        store(&client, date, 1).await;
    }
    let kept = |days: i64| {
        let then: jiff::Timestamp = "2026-03-10T00:00:00Z".parse().unwrap();
        let hours = jiff::Timestamp::now().duration_since(then).as_hours();
        format!("{}d", hours / 24 + days)
    };
    let (kept, horizon) = (kept(0), "7d");
    let arguments = [
        "partitions", "retain", "--retain-interactions", &kept, "--horizon-past", horizon, "--json",
    ];
    let dry = program(&database, &[&arguments[..], &["--dry-run"]].concat());
    let shown = json_of(&dry);
    assert_eq!(
        (&shown[2]["rows"], &shown[2]["to"]),
        (&2.into(), &"2026-03-10T00:00:00Z".into()),
        "{shown}"
    );
    let shown: Vec<_> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["partition"].clone())
        .collect();
    assert_eq!(
        shown,
        [
            "interaction_events_2026_03_08",
            "interaction_events_2026_03_09",
            "rest"
        ]
    );
    assert_eq!(names(&client).await.len(), 5);
    let done = program(&database, &[&arguments[..], &["--actor", "ada"]].concat());
    assert!(done.status.success(), "{}", said(&done));
    let removed = json_of(&done);
    assert_eq!(removed["partitions"][1]["rows"], 2, "{removed}");
    assert_eq!(removed["default_rows"], 2, "{removed}");
    assert_eq!(names(&client).await.len(), 3);
    assert_eq!(
        texts(
            &client,
            "SELECT actor || ' ' || row_count FROM ingest_removed_rows ORDER BY id"
        )
        .await,
        ["ada 1", "ada 2", "ada 2"]
    );
    assert!(differences(&database).await.is_empty());
    let again = program(&database, &arguments[..6]);
    assert_eq!(said(&again), "nothing is older than it is kept\n");

    for (arguments, words) in [
        (
            vec![
                "partitions", "retain", "--retain-interactions", "30d", "--horizon-past", "90d",
            ],
            vec![
                "--retain-interactions 30d",
                "--horizon-past 90d",
                "INGEST_RETAIN_INTERACTIONS",
            ],
        ),
        (vec!["partitions", "retain"], vec!["--retain-exposures"]),
        (
            vec!["partitions", "retain", "--retain-accounts", "1d"],
            vec!["--retain-accounts", "or longer"],
        ),
    ] {
        let refused = program(&database, &arguments);
        assert!(!refused.status.success(), "{arguments:?}");
        for word in words {
            assert!(said(&refused).contains(word), "{word}: {}", said(&refused));
        }
    }
    let settings = Settings::new(&database)
        .with("--horizon-past", "90d")
        .with("--retain-assignments", "89d");
    let mut refused = Process::run(settings.arguments());
    assert!(!refused.wait().success());
    assert!(
        refused.log().contains("--retain-assignments"),
        "{}",
        refused.log()
    );
}

#[tokio::test]
async fn the_owner_makes_partitions_from_cron() {
    let database = Database::migrated().await;
    let made = program(
        &database,
        &[
            "partitions", "ensure", "--partitions-ahead", "1", "--partition-interval", "week",
            "--json",
        ],
    );
    assert!(made.status.success(), "{}", said(&made));
    let made = json_of(&made);
    assert_eq!(made.as_array().unwrap().len(), 6, "{made}");
    let again = program(
        &database,
        &["partitions", "ensure", "--partitions-ahead", "1", "--json"],
    );
    assert_eq!(said(&again), "[]\n", "it goes on in weeks");
    let listed = program(&database, &["partitions", "list", "--json"]);
    let listed = json_of(&listed);
    assert_eq!(listed.as_array().unwrap().len(), 6);
    assert_eq!(listed[0]["state"], "hot", "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_what_nobody_booked_takes_what_is_booked_and_books_what_is_accepted() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    let settings = Settings::new(&database);
    let (mut process, http) = Process::serve(&settings);
    let body: Value = (0..20).map(|n| click(&format!("{n}"))).collect();
    assert_eq!(http.post("/v1/interactions", &body).await.settled().0, 20);
    assert!(process.stop().success());
    settings.assert_verified();
    let spool = settings.spool.path().display().to_string();
    let verify = |more: &[&str]| {
        program(
            &database,
            &[&["verify", "--spool-dir", &spool], more].concat(),
        )
    };

    // An operator who books what he removes.
    let booked = "WITH gone AS (DELETE FROM interaction_events WHERE event_id IN
                         (SELECT event_id FROM interaction_events LIMIT 3) RETURNING 1)
                  INSERT INTO ingest_removed_rows (table_name, row_count, reason)
                  SELECT 'interaction_events', count(*), 'test data' FROM gone";
    client.batch_execute(booked).await.unwrap();
    let holds = verify(&[]);
    assert_eq!(holds.status.code(), Some(0), "{}", said(&holds));
    assert!(
        said(&holds).contains("+ 3 removed on purpose"),
        "{}",
        said(&holds)
    );

    for (damage, what, missing) in [
        (
            "DELETE FROM interaction_events WHERE event_id IN (SELECT event_id FROM interaction_events LIMIT 2)",
            "interaction_events",
            2,
        ),
        (
            "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
             SELECT tenant_id, occurred_at, gen_random_uuid(), now(), event_type, item_id FROM interaction_events LIMIT 1",
            "interaction_events",
            -1,
        ),
        (
            "INSERT INTO ingest_quarantine (tenant_id, table_name, row) VALUES (gen_random_uuid(), 'interaction_events', '{}')",
            "ingest_quarantine",
            -1,
        ),
        (
            "UPDATE ingest_ledger SET duplicates = duplicates + 9
              WHERE table_name = 'interaction_events' AND stored > 0",
            "ingest_ledger",
            -9,
        ),
        (
            "UPDATE ingest_ledger SET duplicates = duplicates - 4
              WHERE table_name = 'interaction_events' AND stored > 0",
            "ingest_ledger",
            4,
        ),
    ] {
        client.batch_execute(damage).await.unwrap();
        let differs = verify(&[]);
        assert_eq!(differs.status.code(), Some(1), "{damage}\n{}", said(&differs));
        assert!(said(&differs).contains("DIFFERS"), "{}", said(&differs));
        let refused = verify(&["--accept", " "]);
        assert_eq!(refused.status.code(), Some(2), "no reason: {}", said(&refused));
        let accepted = verify(&["--accept", "known", "--actor", "ada"]);
        assert_eq!(accepted.status.code(), Some(0), "{damage}\n{}", said(&accepted));
        let entry = "SELECT concat_ws(' ', table_name, row_count, kind, actor, reason)
                       FROM ingest_removed_rows ORDER BY id DESC LIMIT 1";
        assert_eq!(
            one::<String>(&client, entry).await,
            format!("{what} {missing} accepted ada known")
        );
        settings.assert_verified();
    }
    // With nothing to book it says so.
    let entries = "SELECT count(*) FROM ingest_removed_rows";
    let before: i64 = one(&client, entries).await;
    let accepted = verify(&["--accept", "known"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", said(&accepted));
    assert!(
        said(&accepted).contains("nothing was booked"),
        "{}",
        said(&accepted)
    );
    assert_eq!(one::<i64>(&client, entries).await, before);
    // It can be used as before.
    let (mut process, http) = Process::serve(&settings);
    let body: Value = (20..30).map(|n| click(&format!("{n}"))).collect();
    assert_eq!(http.post("/v1/interactions", &body).await.settled().0, 10);
    assert!(process.stop().success());
    settings.assert_verified();

    let elsewhere = tempfile::tempdir().unwrap();
    let nowhere = elsewhere.path().display().to_string();
    let no_spool = program(&database, &["verify", "--spool-dir", &nowhere]);
    assert_eq!(no_spool.status.code(), Some(2), "{}", said(&no_spool));
    let no_database = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args([
            "verify",
            "--spool-dir",
            &spool,
            "--database-url",
            "postgres://127.0.0.1:1/x",
        ])
        .output()
        .unwrap();
    assert_eq!(no_database.status.code(), Some(2), "{}", said(&no_database));
    assert!(
        said(&no_database).contains("could not look"),
        "{}",
        said(&no_database)
    );
}
