//! Events that come for a time that is no longer kept are set aside, and no partition comes back.

use recsys_ingest::accounts::retention::run::retain;
use serde_json::{Value, json};

use super::words::{differences, has, keep, names, time};
use crate::harness::{Database, Process, Settings, click, eventually, one, texts};
use crate::schema::words::day;
use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::create::ensure;

/// A click of a time, with an id.
fn click_at(id: &str, time: &str) -> Value {
    let mut event = click(id);
    event["occurred_at"] = json!(time);
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_set_aside_and_its_partition_is_not_made_again() {
    for has_default in [false, true] {
        let database = Database::with_tenants().await;
        let mut client = database.connect().await;
        if has_default {
            let sql = "CREATE TABLE rest PARTITION OF interaction_events DEFAULT";
            client.batch_execute(sql).await.unwrap();
        }
        let settings = Settings::new(&database);
        let (mut process, http) = Process::serve(&settings);
        let post = async |id: &str, time: &str| {
            let body = json!([click_at(id, time)]);
            http.post("/v1/interactions", &body).await
        };
        // The service knows the partition.
        assert_eq!(
            post("a", "2026-03-08T08:00:00Z").await.settled(),
            (1, 0, 0, 0)
        );
        assert_eq!(
            post("b", "2026-03-10T08:00:00Z").await.settled(),
            (1, 0, 0, 0)
        );
        let now = time("2026-06-08T12:00:00Z");
        let report = retain(&mut client, &keep(90), now).await.unwrap();
        assert_eq!(report.removed.len(), 1, "{report:?}");

        // A DEFAULT partition takes what the service still believes to have a partition.
        let reply = post("c", "2026-03-08T09:00:00Z").await;
        let in_default = u64::from(has_default);
        assert_eq!(
            reply.settled(),
            (in_default, 0, 1 - has_default as usize, 0),
            "{}",
            reply.text
        );
        let reply = post("d", "2026-03-07T09:00:00Z").await;
        assert_eq!(reply.settled(), (0, 0, 1, 0), "{}", reply.text);
        assert_eq!(
            reply.json["quarantined"][0]["code"], "IN003",
            "{}",
            reply.text
        );
        assert_eq!(
            post("e", "2026-03-10T09:00:00Z").await.settled(),
            (1, 0, 0, 0)
        );
        for date in ["2026_03_07", "2026_03_08"] {
            assert!(
                !has(&client, &format!("interaction_events_{date}")).await,
                "{date}"
            );
        }
        let (code, text) = settings.verify();
        assert_eq!(code, 0, "{text}");
        let retried = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
            .args([
                "quarantine",
                "retry",
                "--all",
                "--database-url",
                database.url(),
            ])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&retried.stderr).into_owned();
        assert!(words.contains("IN003"), "{words}");

        let again = retain(&mut client, &keep(90), now).await.unwrap();
        assert_eq!(again.default_rows, i64::from(has_default));
        settings.assert_verified();
        // Who wants them after all says so.
        assert!(process.stop().success());
        client
            .batch_execute("DELETE FROM ingest_retention")
            .await
            .unwrap();
        let (mut process, http) = Process::serve(&settings);
        let body = json!([click_at("f", "2026-03-06T09:00:00Z")]);
        let reply = http.post("/v1/interactions", &body).await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
        assert!(process.stop().success());
        settings.assert_verified();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_remove_what_is_old_by_themselves_and_book_it_once() {
    let database = Database::with_tenants().await;
    let mut client = database.connect().await;
    for date in ["2026-01-05", "2026-01-06"] {
        ensure(&mut client, Table::Interactions, day(date), "test")
            .await
            .unwrap();
        super::words::store(&client, date, 5).await;
    }
    let settings = [(); 2].map(|()| {
        Settings::new(&database)
            .with("--horizon-past", "90d")
            .with("--retain-interactions", "90d")
    });
    let _running = settings.each_ref().map(Process::serve);
    let entries = "SELECT table_name || ' ' || row_count FROM ingest_removed_rows
                    WHERE row_count IS NOT NULL ORDER BY id";
    eventually("both days to be gone", async || {
        texts(&client, entries).await.len() == 2
    })
    .await;
    assert_eq!(texts(&client, entries).await, ["interaction_events 5"; 2]);
    assert!(
        !names(&client)
            .await
            .contains(&"interaction_events_2026_01_05".to_owned())
    );
    assert!(differences(&database).await.is_empty());
    let actor: String = one(&client, "SELECT DISTINCT actor FROM ingest_removed_rows").await;
    assert!(!actor.is_empty());
}
