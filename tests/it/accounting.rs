//! Promise: accepted = stored + duplicates + quarantined + spooled, and `verify` proves it or
//! names the account that is wrong.

use serde_json::{Value, json};

use crate::harness::{Audit, Mix, Plan, Rig, Settings, Stored, eventually};

/// A rig with stored, duplicate and quarantined rows in its accounts.
async fn with_history() -> Rig {
    let mut rig = Rig::start(|settings| settings).await;
    crate::poison::refuse_poison(&rig.database).await;
    let plan = Plan {
        bodies: 30,
        ..Plan::default()
    };
    for mix in [
        Mix::Repeats { back: 3 },
        Mix::Repeats { back: 3 },
        Mix::Poisoned { every: 500 },
    ] {
        rig.traffic(Plan { mix, ..plan }).finish();
        rig.settle().await;
    }
    assert!(rig.process.stop().success());
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_which_account_is_wrong() {
    let rig = with_history().await;
    rig.settings.assert_verified();
    for (table, damage) in [
        (
            "interaction_events",
            "DELETE FROM interaction_events
              WHERE event_id = (SELECT min(event_id::text)::uuid FROM interaction_events)",
        ),
        (
            "interaction_events",
            "UPDATE ingest_ledger SET stored = stored + 1
              WHERE table_name = 'interaction_events'
                AND stream = (SELECT min(stream) FROM ingest_ledger
                               WHERE table_name = 'interaction_events')",
        ),
        (
            "interaction_events lane",
            "UPDATE ingest_ledger SET duplicates = duplicates - 1 WHERE duplicates > 0",
        ),
        (
            "ingest_quarantine",
            "DELETE FROM ingest_quarantine
              WHERE id = (SELECT min(id) FROM ingest_quarantine)",
        ),
    ] {
        let mut client = rig.database.connect().await;
        let saved = ["interaction_events", "ingest_ledger", "ingest_quarantine"];
        let (mut save, mut restore) = (String::new(), String::new());
        for table in saved {
            save.push_str(&format!("CREATE TABLE saved_{table} AS TABLE {table};"));
            restore.push_str(&format!(
                "DELETE FROM {table};
                 INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE saved_{table};
                 DROP TABLE saved_{table};"
            ));
        }
        client.batch_execute(&save).await.unwrap();
        client.batch_execute(damage).await.unwrap();
        let (code, text) = rig.settings.verify();
        assert_eq!(code, 1, "{damage}\n{text}");
        let found = text
            .lines()
            .any(|line| line.starts_with(table) && line.contains("DIFFERS"));
        assert!(found, "{damage}\n{text}");
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(&restore).await.unwrap();
        transaction.commit().await.unwrap();
        rig.settings.assert_verified();
    }
}

/// What `verify --json` prints with these arguments, and its exit code.
fn document(settings: &Settings, more: &[&str]) -> (i32, Value) {
    let output = settings.verify_with(&[&["--json"], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&text);
    (
        output.status.code().unwrap(),
        document.unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_the_same_as_json() {
    let rig = with_history().await;
    let (code, said) = document(&rig.settings, &[]);
    assert_eq!((code, &said["holds"]), (0, &true.into()), "{said}");
    assert_eq!(
        (&said["differences"], &said["booked"]),
        (&0.into(), &Value::Null)
    );
    assert_eq!(said["unreadable"], json!([]));
    let sum = |member: &str| -> u64 {
        let lanes = said["lanes"].as_array().unwrap().iter();
        let lanes = lanes.filter(|lane| lane["table"] == "interaction_events");
        lanes.map(|lane| lane[member].as_u64().unwrap()).sum()
    };
    let stored = rig.database.count("interaction_events").await;
    assert_eq!(i64::try_from(sum("stored")).unwrap(), stored);
    assert!(sum("duplicates") > 0 && sum("quarantined") > 0, "{said}");
    assert_eq!(
        sum("accepted"),
        sum("stored") + sum("duplicates") + sum("quarantined") + sum("spooled")
    );
    let table = |said: &Value, name: &str| -> Value {
        let mut tables = said["tables"].as_array().unwrap().iter();
        tables.find(|table| table["table"] == name).unwrap().clone()
    };
    assert_eq!(
        table(&said, "interaction_events"),
        json!({"table": "interaction_events", "rows": stored, "removed": 0, "expected": stored, "difference": 0})
    );

    rig.database
        .execute(
            "DELETE FROM interaction_events
              WHERE event_id = (SELECT min(event_id::text)::uuid FROM interaction_events)",
        )
        .await;
    let (code, said) = document(&rig.settings, &[]);
    assert_eq!((code, &said["holds"]), (1, &false.into()), "{said}");
    assert_eq!(said["differences"], 1);
    assert_eq!(table(&said, "interaction_events")["difference"], -1);
    let (code, said) = document(&rig.settings, &["--accept", "a test"]);
    assert_eq!((code, &said["holds"]), (0, &true.into()), "{said}");
    assert_eq!(
        said["booked"],
        json!({"differences": 1, "reason": "a test"})
    );
    let (code, said) = document(&rig.settings, &[]);
    assert_eq!((code, &said["differences"]), (0, &0.into()), "{said}");
    assert_eq!(table(&said, "interaction_events")["removed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oracle_of_these_tests_sees_what_is_missing_and_what_is_too_much() {
    let rig = Rig::start(|settings| settings).await;
    let plan = Plan {
        bodies: 20,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    rig.assert_kept(&[&sent]).await;
    let sql = "DELETE FROM interaction_events WHERE event_id =
                   '019cd6c2-8c7b-7000-8000-000000000011';
               INSERT INTO interaction_events
                   (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
               SELECT tenant_id, occurred_at, gen_random_uuid(), now(), event_type, item_id
                 FROM interaction_events LIMIT 1;
               INSERT INTO interaction_events
                   (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
               SELECT tenant_id, occurred_at + interval '1 s', event_id, now(), event_type, item_id
                 FROM interaction_events WHERE event_id::text LIKE '019cd6c2%' LIMIT 1";
    rig.database.execute(sql).await;
    let stored = Stored::read(&rig.database, "interaction_events", 2000).await;
    let audit = Audit::of(&[&sent], &stored, None);
    let expected = Audit {
        acknowledged: 2000,
        missing: 1,
        twice: 1,
        uncalled_for: 1,
        ..Audit::default()
    };
    assert_eq!(audit, expected);
    assert_eq!(stored.events(), 1999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_without_its_server_says_what_it_leaves_behind() {
    let mut rig = Rig::start(|settings| settings.with("--shutdown-grace", "1s")).await;
    let plan = Plan {
        bodies: 40,
        ..Plan::default()
    };
    let first = rig.traffic(plan).finish();
    rig.settle().await;
    rig.cluster.crash();
    let second = rig.traffic(Plan { first: 40, ..plan }).finish();
    assert!(rig.process.stop().success());
    let expected = json!({
        "accepted": 8000, "stored": 4000, "duplicates": 0, "quarantined": 0, "spooled": 4000,
        "refused": 0, "in_time": false
    });
    assert_eq!(rig.process.report(), expected);
    rig.cluster.restart();
    rig.settings.assert_verified();
    rig.serve();
    rig.assert_kept(&[&first, &second]).await;
    assert!(rig.process.stop().success());
    let expected = json!({
        "accepted": 8000, "stored": 8000, "duplicates": 0, "quarantined": 0, "spooled": 0,
        "refused": 0, "in_time": true
    });
    assert_eq!(rig.process.report(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_balance_while_everything_moves() {
    // A small cap keeps segments coming and going.
    let rig = Rig::start(|settings| settings.with("--spool-bytes-max", "36MiB")).await;
    let traffic = rig.traffic(Plan {
        bodies: 100_000,
        senders: 2,
        ..Plan::default()
    });
    for _ in 0..20 {
        let [accepted, stored, duplicates, quarantined, spooled] = rig.rows().await;
        assert_eq!(accepted, stored + duplicates + quarantined + spooled);
        rig.settings.assert_verified();
    }
    let sent = traffic.stop();
    rig.assert_kept(&[&sent]).await;
    eventually("ready", async || rig.ready().await.1 == "ready").await;
}
