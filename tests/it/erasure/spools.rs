//! What waits in spools, is sent again, or is tried again from quarantine does not bring an erased
//! user back.

use std::process::Command;

use serde_json::Value;

use super::{TABLES, assert_balanced, events, json_of, key, post, rows, said, users};
use crate::harness::{Client as Http, Process, Rig, Settings, eventually, one};

const DAY: &str = "2026-03-10";

/// Events of a user of one kind, of which one of the interactions is refused by a constraint.
fn bodies(instance: usize, user: &str) -> [Value; 3] {
    [0, 1, 2].map(|kind| {
        let event = |n: usize| {
            let mut event = events(&format!("{instance} {user} {n}"), user, DAY)[kind].clone();
            if kind == 1 && n == 7 {
                event["item_id"] = "poison".into();
            }
            event
        };
        (0..50).map(event).collect()
    })
}

async fn send(http: &Http, instance: usize, users: &[&str]) {
    for user in users {
        for ((_, path), body) in TABLES.iter().zip(bodies(instance, user)) {
            let reply = http.query("ack=durable").post(path, &body).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
        }
    }
}

/// Waits until an instance has stored what is in its spool.
async fn drained(http: &Http) {
    eventually("the spool to be empty", async || {
        let reply = http.get("/readyz?verbose").await;
        let tables = reply.json["rows"].as_array().cloned().unwrap_or_default();
        !tables.is_empty() && tables.iter().all(|table| table["spooled"] == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_spools_of_two_instances_is_left_out_when_it_is_stored() {
    for erases_while_it_is_stored in [false, true] {
        let mut rig = Rig::start(|settings| settings).await;
        let settings = Settings::new(&rig.database);
        let (mut second, http) = Process::serve(&settings);
        let constraint =
            "ALTER TABLE interaction_events ADD CONSTRAINT no_poison CHECK (item_id <> 'poison')";
        rig.database.execute(constraint).await;
        assert_eq!(post(&rig.client, "first", "ann", DAY).await, 3);
        rig.cluster.crash();
        for (n, client) in [&rig.client, &http].into_iter().enumerate() {
            send(client, n, &["ann", "bob"]).await;
        }
        rig.process.kill();
        second.kill();
        rig.cluster.restart();
        let erase = |database: &_| {
            let arguments = ["erase", "--user-key", &key("ann"), "--json"];
            json_of(&users(database, &arguments))
        };
        if !erases_while_it_is_stored {
            let erased = erase(&rig.database);
            assert_eq!(erased["users"][0]["exposure_events"], 1, "{erased}");
        }
        rig.serve();
        let (mut second, http) = Process::serve(&settings);
        if erases_while_it_is_stored {
            erase(&rig.database);
        }
        drained(&rig.client).await;
        drained(&http).await;
        let client = rig.database.connect().await;
        let stored = async || (rows(&client, "ann").await, rows(&client, "bob").await);
        assert_eq!(stored().await, (0, 2 * 149));
        assert_eq!(rig.database.count("ingest_quarantine").await, 2);
        let booked = "SELECT sum(row_count)::bigint FROM ingest_removed_rows
                       WHERE kind = 'erasure' AND table_name <> 'ingest_quarantine'";
        // The refused events count where they were found: in a batch, or in quarantine.
        let of_ann = one::<i64>(&client, booked).await;
        assert!((3 + 2 * 149..=3 + 2 * 150).contains(&of_ann), "{of_ann}");

        // Sent again, each to the other instance.
        for (n, client) in [&http, &rig.client].into_iter().enumerate() {
            send(client, n, &["ann", "bob"]).await;
        }
        drained(&rig.client).await;
        drained(&http).await;
        assert_eq!(stored().await, (0, 2 * 149));
        // Those of the other user are still refused, and then they are not.
        let refused = rig.database.count("ingest_quarantine").await;
        for (mends, left) in [(false, refused), (true, 0)] {
            if mends {
                rig.database
                    .execute("ALTER TABLE interaction_events DROP CONSTRAINT no_poison")
                    .await;
            }
            let retried = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
                .args(["quarantine", "retry", "--all"])
                .args(["--database-url", rig.database.url()])
                .output()
                .unwrap();
            assert_eq!(retried.status.success(), mends, "{}", said(&retried));
            assert_eq!(rig.database.count("ingest_quarantine").await, left);
        }
        assert_eq!(stored().await, (0, 2 * 150));
        assert!(rig.process.stop().success() && second.stop().success());
        assert_balanced(&rig.database).await;
        rig.settings.assert_verified();
        settings.assert_verified();
    }
}
