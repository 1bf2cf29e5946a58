//! Promise: a row that PostgreSQL refuses is quarantined alone.

use std::process::Command;

use recsys_ingest::accounts::verify::{TableCheck, count_tables};
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{
    DEMO, Service, blocking, click, eventually, one, rows_as_text, texts, uuid_of,
};

/// `count` clicks; the table refuses the items of those at `poisoned`.
fn body(name: &str, count: usize, poisoned: &[usize]) -> Value {
    (0..count)
        .map(|n| {
            let mut event = click(&format!("{name} {n}"));
            if poisoned.contains(&n) {
                event["item_id"] = json!("poison");
            }
            event
        })
        .collect()
}

async fn with_a_stricter_table() -> Service {
    let service = Service::with(|s| s.with("--flush-waited-after", "20ms")).await;
    service
        .database
        .execute(
            "ALTER TABLE interaction_events ADD CONSTRAINT no_poison CHECK (item_id <> 'poison')",
        )
        .await;
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_rows_are_quarantined_and_all_others_of_all_clients_are_stored() {
    let service = with_a_stricter_table().await;
    let mut posts = tokio::task::JoinSet::new();
    for client in 0..6_usize {
        let http = service.client().clone();
        posts.spawn(async move {
            let mut bad_rows = 0;
            for round in 0..6_usize {
                let count = 20 + client;
                // None, one at an edge, a few in the middle, every second one, all but one.
                let poisoned: Vec<usize> = match (client + round) % 6 {
                    0 => vec![],
                    1 => vec![0],
                    2 => vec![count - 1],
                    3 => vec![3, 4, 5, 11],
                    4 => (0..count).step_by(2).collect(),
                    _ => (1..count).collect(),
                };
                let body = body(&format!("{client} {round}"), count, &poisoned);
                let reply = http.post("/v1/interactions", &body).await;
                let good = (count - poisoned.len()) as u64;
                assert_eq!(
                    reply.settled(),
                    (good, 0, poisoned.len(), 0),
                    "{}",
                    reply.text
                );
                let mut indexes = Vec::new();
                for bad in reply.json["quarantined"].as_array().unwrap() {
                    assert_eq!(bad["code"], "23514");
                    assert!(
                        bad["message"].as_str().unwrap().contains("no_poison"),
                        "{bad}"
                    );
                    indexes.push(usize::try_from(bad["index"].as_u64().unwrap()).unwrap());
                }
                indexes.sort_unstable();
                assert_eq!(indexes, poisoned);
                bad_rows += poisoned.len();
            }
            bad_rows
        });
    }
    let bad_rows: usize = posts.join_all().await.into_iter().sum();
    let all: usize = (0..6).map(|client| 6 * (20 + client)).sum();
    let database = &service.database;
    assert_eq!(
        database.count("interaction_events").await,
        (all - bad_rows) as i64
    );
    assert_eq!(database.count("ingest_quarantine").await, bad_rows as i64);
    let sample = "recsys_ingest_events_total{table=\"interaction_events\",outcome=\"quarantined\"}";
    assert_eq!(service.metric(sample).await, bad_rows as f64);
}

#[tokio::test]
async fn a_quarantined_row_is_kept_whole_and_once_and_can_be_put_back() {
    let service = with_a_stricter_table().await;
    let mut event = click("bad");
    event["item_id"] = json!("poison");
    event["value"] = json!(19.99);
    event["user_id"] = json!("user");
    event["meta"] = json!({"quoted": "a \"b\" \\ \u{7} é"});
    for _ in 0..2 {
        assert_eq!(service.interactions(&event).await.settled(), (0, 0, 1, 0));
    }
    let sql = "SELECT table_name, tenant_id, event_id, occurred_at, sqlstate, constraint_name,
                      column_name, received_at IS NOT NULL AS received, message
                 FROM ingest_quarantine";
    let kept = rows_as_text(&service.database, sql).await;
    assert_eq!(
        json!(kept),
        json!([{
            "table_name": "interaction_events", "tenant_id": DEMO, "event_id": uuid_of(DEMO, "bad"),
            "occurred_at": "2026-03-10 08:00:00+00", "sqlstate": "23514",
            "constraint_name": "no_poison", "column_name": null, "received": "t",
            "message": kept[0]["message"]
        }])
    );
    assert_eq!(service.database.count("interaction_events").await, 0);

    // Once the table takes the row, it can be copied back unchanged.
    service
        .database
        .execute(
            "ALTER TABLE interaction_events DROP CONSTRAINT no_poison;
             INSERT INTO interaction_events
             SELECT r.* FROM ingest_quarantine q,
                    jsonb_populate_record(NULL::interaction_events, q.row) r",
        )
        .await;
    assert_eq!(service.interactions(&event).await.settled(), (0, 1, 0, 0));
    let found = crate::harness::rows(&service.database, "interaction_events").await;
    assert_eq!(found[0]["value"], "19.990000");
    assert_eq!(found[0]["meta"], event["meta"]);
    let user = "\\x48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
    assert_eq!(found[0]["user_key"], user);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_quarantine_are_listed_and_shown_as_json() {
    let service = with_a_stricter_table().await;
    assert_eq!(
        service.interactions(&body("x", 3, &[0, 2])).await.settled(),
        (1, 0, 2, 0)
    );
    let document = |arguments: &[&str]| -> Value {
        let (code, out, err) =
            crate::signals::cli(&service.database, &[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    };
    let listed = document(&["quarantine", "list"]);
    let events = listed.as_array().unwrap().iter();
    let mut events: Vec<_> = events.map(|row| row["event_id"].clone()).collect();
    events.sort_by_key(Value::to_string);
    let mut expected = ["x 0", "x 2"].map(|name| json!(uuid_of(DEMO, name)));
    expected.sort_by_key(Value::to_string);
    assert_eq!(events, expected);
    let row = &listed[0];
    assert_eq!(
        *row,
        json!({
            "id": row["id"], "at": row["at"], "table": "interaction_events", "tenant": "demo",
            "event_id": row["event_id"], "code": "23514", "place": "no_poison",
            "message": row["message"]
        })
    );
    let (id, at) = (row["id"].as_i64().unwrap(), row["at"].as_str().unwrap());
    assert!(id > listed[1]["id"].as_i64().unwrap(), "the latest first");
    assert!(at.parse::<jiff::Timestamp>().is_ok(), "{at}");
    let one = document(&["quarantine", "list", "--limit", "1"]);
    assert_eq!(one, json!([row]));
    let shown = document(&["quarantine", "show", &id.to_string()]);
    assert_eq!(shown["row"]["item_id"], "poison");
    assert_eq!(shown["message"], row["message"]);
    assert_eq!(document(&["quarantine", "list", "--limit", "0"]), json!([]));
}

#[tokio::test]
async fn duplicates_and_poison_in_one_body_are_told_apart() {
    let service = with_a_stricter_table().await;
    let first = body("x", 10, &[]);
    assert_eq!(service.interactions(&first).await.settled(), (10, 0, 0, 0));
    // Five known events, five new ones, one of them poisoned, and a repeat of a new one.
    let mut second: Vec<Value> = first.as_array().unwrap()[..5].to_vec();
    second.extend(body("y", 5, &[2]).as_array().unwrap().clone());
    second.push(second[6].clone());
    let reply = service.interactions(&json!(second)).await;
    assert_eq!(reply.settled(), (4, 6, 1, 0), "{}", reply.text);
    assert_eq!(reply.json["quarantined"][0]["index"], 7);
}

#[tokio::test]
async fn a_unique_index_of_somebody_elses_does_not_stop_the_lane() {
    let service = with_a_stricter_table().await;
    service
        .database
        .execute("CREATE UNIQUE INDEX theirs ON interaction_events (occurred_at, item_id)")
        .await;
    let body = json!([click("a"), click("b")]);
    let reply = service.interactions(&body).await;
    assert_eq!(reply.settled(), (1, 0, 1, 0), "{}", reply.text);
    assert_eq!(reply.json["quarantined"][0]["code"], "23505");
    let sqlstates = texts(
        &service.database.connect().await,
        "SELECT sqlstate || ' ' || constraint_name FROM ingest_quarantine",
    )
    .await;
    assert_eq!(sqlstates.len(), 1);
    assert!(sqlstates[0].starts_with("23505 "), "{sqlstates:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_thrown_away_are_booked_with_who_and_why_and_the_accounts_balance() {
    let service = with_a_stricter_table().await;
    let reply = service
        .interactions(&body("x", 8, &[0, 1, 2, 3, 4, 5, 6]))
        .await;
    assert_eq!(reply.settled(), (1, 0, 7, 0), "{}", reply.text);
    let client = service.database.connect().await;
    let id = async |nth: i64| {
        let sql = format!("SELECT id FROM ingest_quarantine ORDER BY id OFFSET {nth} LIMIT 1");
        one::<i64>(&client, &sql).await.to_string()
    };
    let (first, second) = (id(0).await, id(1).await);
    let drop_rows = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"));
        command
            .args([
                "quarantine",
                "drop",
                "--database-url",
                service.database.url(),
            ])
            .args(arguments)
            .env_remove("INGEST_ACTOR")
            .env("USER", "grace");
        let output = blocking(move || command.output().unwrap());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    // One that is not there, and nothing is done.
    let (code, text) = drop_rows(&[&first, "999999"]);
    assert!(
        code == Some(1) && text.contains("nothing was done"),
        "{text}"
    );
    let (code, text) = drop_rows(&[&first, "--reason", " "]);
    assert!(code == Some(2) && text.contains("say why"), "{text}");
    for (arguments, dropped) in [
        (&["--code", "99999"][..], 0),
        (
            &[
                &first, &second, "--reason", "a broken page", "--actor", "ada",
            ],
            2,
        ),
        (&["--code", "23514"], 5),
        (&["--all"], 0),
    ] {
        let (code, text) = drop_rows(arguments);
        assert_eq!((code, text), (Some(0), format!("{dropped} dropped\n")));
    }
    let booked = texts(
        &client,
        "SELECT concat_ws(' / ', table_name, kind, row_count, actor, reason) FROM ingest_removed_rows ORDER BY id",
    )
    .await;
    assert_eq!(
        booked,
        [
            "ingest_quarantine / operator / 2 / ada / a broken page",
            "ingest_quarantine / operator / 5 / grace / quarantine drop --code 23514",
        ]
    );
    let mut client = client;
    for check in count_tables(&mut client).await.unwrap() {
        assert_eq!(check.missing(), 0, "{check:?}");
    }
    let viewer = service.client().role("demo", Role::Viewer);
    eventually("the page to show it", async || {
        let live = viewer.get("/live").await.json;
        let totals = live["totals"].as_array().cloned().unwrap_or_default();
        let clicks = totals
            .iter()
            .find(|one| one["table"] == "interaction_events");
        clicks.is_some_and(|clicks| clicks["quarantined"] == 0 && clicks["dropped"] == 7)
    })
    .await;
    // A row that is removed behind the books' back is still missed.
    assert_eq!(
        service.interactions(&body("y", 1, &[0])).await.settled(),
        (0, 0, 1, 0)
    );
    client
        .execute("DELETE FROM ingest_quarantine", &[])
        .await
        .unwrap();
    let checks = count_tables(&mut client).await.unwrap();
    let missing: Vec<_> = checks.iter().map(TableCheck::missing).collect();
    assert_eq!(missing, [0, 0, 0, 1], "{checks:?}");
}
