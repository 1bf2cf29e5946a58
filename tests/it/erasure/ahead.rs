//! An erasure has a time that has passed: what is yet to come is not erased ahead.

use std::process::Command;

use serde_json::Value;

use super::{json_of, key, post, rows, said, users};
use crate::harness::{Database, Process, Settings, one};

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_the_future_is_refused_with_both_times() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    let year: String = one(
        &client,
        "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')",
    )
    .await;
    let before = "2099-01-01T00:00:00Z";
    for more in [&["--dry-run"][..], &[]] {
        let arguments = [&["erase", "--user-id", "ann", "--before", before], more].concat();
        let refused = users(&database, &arguments);
        let said = said(&refused);
        assert!(!refused.status.success(), "{said}");
        assert!(said.contains(before) && said.contains(&year), "{said}");
    }
    assert_eq!(database.count("ingest_erased_subjects").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_reaches_ahead_is_found_and_mended_by_sql_or_by_the_next_one() {
    for mended_by_sql in [true, false] {
        let database = Database::with_tenants().await;
        let client = database.connect().await;
        let ahead = format!(
            "INSERT INTO ingest_erased_subjects (tenant_id, user_key, before, erased_at)
             SELECT id, '\\x{}', '2099-01-01', now() - interval '1 hour' FROM tenants WHERE external_id = 'demo'",
            key("ann")
        );
        client.batch_execute(&ahead).await.unwrap();
        let settings = Settings::new(&database);
        let (mut process, http) = Process::serve(&settings);
        let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48)).to_string();
        let day = &later[..10];
        assert_eq!(post(&http, "a", "ann", day).await, 3, "answered as stored");
        assert_eq!(rows(&client, "ann").await, 0);

        match mended_by_sql {
            true => client
                .batch_execute(&shown_by_doctor(&database))
                .await
                .unwrap(),
            false => drop(json_of(&users(
                &database,
                &["erase", "--user-id", "ann", "--json"],
            ))),
        }
        assert_eq!(post(&http, "b", "ann", day).await, 3);
        assert_eq!(rows(&client, "ann").await, 3);
        // What it was for holds: nothing from before it is stored.
        assert_eq!(post(&http, "c", "ann", "2026-03-10").await, 3);
        assert_eq!(rows(&client, "ann").await, 3);
        assert!(process.stop().success());
        settings.assert_verified();
    }
}

/// The SQL that `doctor` shows for an erasure that reaches into the future.
fn shown_by_doctor(database: &Database) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(["doctor", "--json", "--database-url", database.url()])
        .env_remove("INGEST_SPOOL_DIR")
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let found = findings.iter().find(|one| one["code"] == "erasure_ahead");
    let found = found.unwrap_or_else(|| panic!("{document:#}"));
    assert_eq!(found["severity"], "degraded", "{found}");
    found["sql"][0].as_str().unwrap().to_owned()
}
