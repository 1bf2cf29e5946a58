//! Promise: once a user is erased, nothing of theirs from before is stored, wherever it comes from,
//! and all that is stored of a user can be handed over.

mod ahead;
mod load;
mod spools;
mod steps;

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use recsys_ingest::accounts::retention::policy::Policy;
use recsys_ingest::accounts::retention::run::retain;
use recsys_ingest::accounts::verify::count_tables;
use recsys_ingest::event::time::Micros;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::{
    Client as Http, Database, Process, SALT, Settings, assigned, click, eventually, one, shown,
    texts,
};

/// The table and endpoint of each kind of event.
const TABLES: [(&str, &str); 3] = [
    ("exposure_events", "/v1/exposures"),
    ("interaction_events", "/v1/interactions"),
    ("ingest_assignments", "/v1/assignments"),
];

fn users(database: &Database, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .arg("users")
        .args(arguments)
        .args(["--tenant", "demo", "--database-url", database.url()])
        .env("EXPOSURE_HASH_SALT", SALT)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An event of each kind, of a user, on a day.
fn events(id: &str, user: &str, day: &str) -> [Value; 3] {
    let with = |mut event: Value, time: &str| {
        event["user_id"] = user.into();
        event[time] = format!("{day}T08:00:00Z").into();
        event
    };
    let mut click = with(click(id), "occurred_at");
    click["anonymous_id"] = format!("visitor of {user}").into();
    click["session_id"] = "s1".into();
    [
        with(shown(id), "occurred_at"),
        click,
        with(assigned(id), "ts"),
    ]
}

/// Posts an event of each kind; returns how many were stored or said to be.
async fn post(http: &Http, id: &str, user: &str, day: &str) -> u64 {
    let mut stored = 0;
    for ((_, path), event) in TABLES.iter().zip(events(id, user, day)) {
        let reply = http.post(path, &json!([event])).await;
        let (new, duplicates, quarantined, rejected) = reply.settled();
        assert_eq!(
            (duplicates, quarantined, rejected),
            (0, 0, 0),
            "{}",
            reply.text
        );
        stored += new;
    }
    stored
}

/// Rows of a user in all tables, by the hash of the id.
async fn rows(client: &Client, user: &str) -> i64 {
    let mut rows = 0;
    for (table, _) in TABLES {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE user_key = '\\x{}'",
            key(user)
        );
        rows += one::<i64>(client, &sql).await;
    }
    rows
}

fn key(user: &str) -> String {
    let pseudonymizer = recsys_ingest::event::identity::Pseudonymizer::new(SALT.as_bytes());
    hex::encode(pseudonymizer.hash(user).unwrap())
}

async fn assert_balanced(database: &Database) {
    let mut client = database.connect().await;
    for check in count_tables(&mut client).await.unwrap() {
        assert_eq!(check.missing(), 0, "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_gone_from_tables_and_quarantine_and_does_not_come_back() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    client
        .batch_execute(
            "ALTER TABLE interaction_events ADD CONSTRAINT no_poison CHECK (item_id <> 'poison')",
        )
        .await
        .unwrap();
    let settings = [(); 2].map(|()| Settings::new(&database));
    let mut running = settings.each_ref().map(Process::serve);
    let instances = [running[0].1.clone(), running[1].1.clone()];
    for (day, http) in ["2026-03-10", "2026-03-11"].iter().zip(&instances) {
        assert_eq!(post(http, "a", "ann", day).await, 3);
        assert_eq!(post(http, "b", "bob", day).await, 3);
    }
    let mut poison = events("poison", "ann", "2026-03-10")[1].clone();
    poison["item_id"] = "poison".into();
    let reply = instances[0]
        .post("/v1/interactions", &json!([poison]))
        .await;
    assert_eq!(reply.settled(), (0, 0, 1, 0), "{}", reply.text);
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE ingest_quarantine;
             ALTER TABLE interaction_events DROP CONSTRAINT no_poison",
        )
        .await
        .unwrap();
    // Rows of one day are found by an index, those of the other are not.
    let sealed = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args([
            "partitions",
            "seal",
            "interaction_events_2026_03_10",
            "--database-url",
            database.url(),
        ])
        .output()
        .unwrap();
    assert!(sealed.status.success(), "{}", said(&sealed));

    let exported = users(&database, &["export", "--user-id", "ann"]);
    let lines: Vec<Value> = said(&exported)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let from = |table: &str| lines.iter().filter(|line| line["table"] == table).count();
    assert_eq!(
        [
            from("exposure_events"),
            from("interaction_events"),
            from("ingest_assignments"),
            from("ingest_quarantine")
        ],
        [2, 2, 2, 1],
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .all(|line| line["row"]["user_key"] == format!("\\x{}", key("ann"))),
        "{lines:?}"
    );

    let dry = json_of(&users(
        &database,
        &["erase", "--user-id", " ann ", "--dry-run", "--json"],
    ));
    let expected = json!({
        "user_key": key("ann"), "exposure_events": 2, "interaction_events": 2,
        "ingest_assignments": 2, "ingest_quarantine": 1,
    });
    let same = |found: &Value| {
        let mut found = found.clone();
        found.as_object_mut().unwrap().remove("later");
        found
    };
    assert_eq!(same(&dry["users"][0]), expected);
    assert_eq!(dry["anonymous_ids"], json!([key("visitor of ann")]));
    assert_eq!(rows(&client, "ann").await, 6);

    let erased = json_of(&users(
        &database,
        &["erase", "--user-id", "ann", "--json", "--actor", "ada"],
    ));
    assert_eq!(erased["users"][0], expected, "{erased}");
    assert_eq!(erased["anonymous_ids"], json!([key("visitor of ann")]));
    assert_eq!(
        (rows(&client, "ann").await, rows(&client, "bob").await),
        (0, 6)
    );
    assert_eq!(database.count("ingest_quarantine").await, 0);
    let audit = "SELECT string_agg(action || ' ' || entity_id, ', ' ORDER BY id) FROM audit_log WHERE actor_sub = 'ada'";
    assert_eq!(
        one::<String>(&client, audit).await,
        format!("user.erase {0}, user.erased {0}", key("ann"))
    );

    // The same events again, in another batch with those of others.
    for (day, http) in ["2026-03-10", "2026-03-11"].iter().zip(&instances) {
        assert_eq!(post(http, "a", "ann", day).await, 3, "answered as stored");
        let body = json!([events("c", "ann", day)[1], events("c", "bob", day)[1]]);
        let body = json!([body[0], body[1], events("d", "bob", day)[1]]);
        let reply = http.post("/v1/interactions", &body).await;
        // An id that both have used is one event: the first of them.
        assert_eq!(reply.settled(), (2, 1, 0, 0), "{}", reply.text);
    }
    assert_eq!(rows(&client, "ann").await, 0);
    // From a quarantine that was restored.
    client
        .batch_execute(
            "INSERT INTO ingest_quarantine OVERRIDING SYSTEM VALUE TABLE saved;
             INSERT INTO ingest_ledger (instance_id, stream, table_name, settled, quarantined)
             VALUES (gen_random_uuid(), 1, 'interaction_events', 0, 1)",
        )
        .await
        .unwrap();
    let retried = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args([
            "quarantine",
            "retry",
            "--all",
            "--database-url",
            database.url(),
        ])
        .output()
        .unwrap();
    assert!(
        said(&retried).contains("1 of erased users removed"),
        "{}",
        said(&retried)
    );
    assert_eq!(rows(&client, "ann").await, 0);
    // Who comes back later is a user again.
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48)).to_string();
    assert_eq!(post(&instances[0], "e", "ann", &later[..10]).await, 3);
    assert_eq!(rows(&client, "ann").await, 3);
    for (process, _) in &mut running {
        assert!(process.stop().success());
    }
    for settings in &settings {
        settings.assert_verified();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_retention_has_kept_are_searched_and_the_books_still_balance() {
    for keeps_rows in [false, true] {
        let database = Database::with_tenants().await;
        let client = database.connect().await;
        let settings = Settings::new(&database);
        let (mut process, http) = Process::serve(&settings);
        for (n, day) in ["2026-03-07", "2026-03-08", "2026-03-10"]
            .into_iter()
            .enumerate()
        {
            assert_eq!(post(&http, &format!("a{n}"), "ann", day).await, 3);
            assert_eq!(post(&http, &format!("b{n}"), "bob", day).await, 3);
        }
        // Two partitions are kept as tables, one under another name, and one is detached and not
        // counted yet.
        let mut retaining = database.connect().await;
        let policy = Policy {
            tables: [None, Some(std::time::Duration::from_secs(86_400)), None],
            keeps_detached: true,
            ..Policy::default()
        };
        let now = Micros::parse("2026-03-10T12:00:00Z").unwrap();
        let report = retain(&mut retaining, &policy, now).await.unwrap();
        assert_eq!(report.removed.len(), 2, "{report:?}");
        client
            .batch_execute(
                "ALTER TABLE interaction_events_2026_03_07 RENAME TO old_clicks;
                 INSERT INTO ingest_removed_rows (table_name, kind, reason, relation, relation_oid, range_from, range_to)
                 VALUES ('exposure_events', 'retention', 'test', 'public.exposure_events_2026_03_08',
                         'exposure_events_2026_03_08'::regclass, '2026-03-08', '2026-03-09');
                 ALTER TABLE exposure_events DETACH PARTITION exposure_events_2026_03_08;
                 CREATE TABLE left_over (theirs int);
                 INSERT INTO ingest_removed_rows (table_name, row_count, reason, relation, relation_oid)
                 VALUES ('interaction_events', 0, 'a number that is used again', 'public.gone', 'left_over'::regclass)",
            )
            .await
            .unwrap();
        assert_balanced(&database).await;
        let detached = json!([
            "exposure_events_2026_03_08",
            "old_clicks",
            "interaction_events_2026_03_08"
        ]);
        let exported = users(&database, &["export", "--user-id", "ann"]);
        let exported = said(&exported);
        assert_eq!(exported.lines().count(), 9, "{exported}");
        assert_eq!(exported.matches("\"detached\"").count(), 3, "{exported}");
        let mut arguments = vec!["erase", "--user-id", "ann", "--json"];
        arguments.extend(keeps_rows.then_some("--keep-rows"));
        let mut dry = arguments.clone();
        dry.push("--dry-run");
        for arguments in [dry, arguments] {
            let told = json_of(&users(&database, &arguments));
            assert_eq!(told["detached_tables"], detached, "{told}");
            for (table, _) in TABLES {
                assert_eq!(told["users"][0][table], 3, "{told}");
            }
            assert_eq!(told["anonymous_ids"], json!([key("visitor of ann")]));
        }
        assert_eq!(rows(&client, "ann").await, 0);
        for table in detached.as_array().unwrap() {
            let table = table.as_str().unwrap();
            let of = |user: &str| {
                format!(
                    "SELECT count(*) FROM {table} WHERE user_key = '\\x{}'",
                    key(user)
                )
            };
            let left = [
                one::<i64>(&client, &of("ann")).await,
                one(&client, &of("bob")).await,
            ];
            assert_eq!(left, [0, 1], "{table}");
        }
        assert_balanced(&database).await;
        // What was detached and not counted is, by the next run.
        retain(&mut retaining, &policy, now).await.unwrap();
        assert_balanced(&database).await;
        assert!(process.stop().success());
        settings.assert_verified();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_batch_that_is_under_way_escapes_an_erasure() {
    let database = Database::with_tenants().await;
    let settings = [(); 2].map(|()| Settings::new(&database));
    let running = settings.each_ref().map(Process::serve);
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..6_usize {
        let (stop, http) = (Arc::clone(&stop), running[sender % 2].1.clone());
        senders.spawn(async move {
            let mut posted = 0;
            while !stop.load(Ordering::Relaxed) {
                let body: Value = (0..20)
                    .map(|n| {
                        events(
                            &format!("{sender} {posted} {n}"),
                            ["ann", "bob"][n % 2],
                            "2026-03-10",
                        )[1]
                        .clone()
                    })
                    .collect();
                let reply = http.post("/v1/interactions", &body).await;
                assert_eq!(reply.settled(), (20, 0, 0, 0), "{}", reply.text);
                posted += 1;
            }
            posted
        });
    }
    let client = database.connect().await;
    eventually("rows of the user", async || {
        rows(&client, "ann").await > 100
    })
    .await;
    for _ in 0..3 {
        let database = database.clone();
        let erasing = tokio::task::spawn_blocking(move || {
            users(&database, &["erase", "--user-id", "ann", "--json"])
        });
        json_of(&erasing.await.unwrap());
        for _ in 0..20 {
            assert_eq!(rows(&client, "ann").await, 0);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let bodies: i64 = senders.join_all().await.into_iter().sum();
    assert_eq!(
        (rows(&client, "ann").await, rows(&client, "bob").await),
        (0, bodies * 10)
    );
    assert_balanced(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_copied_before_an_erasure_is_not_entered_after_it() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    // The COPY waits here, before the batch is entered into the ledger.
    client
        .batch_execute(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock(4711); RETURN NEW;
             END $$;
             CREATE TRIGGER hold BEFORE INSERT ON interaction_events FOR EACH ROW EXECUTE FUNCTION hold();
             SELECT pg_advisory_lock(4711)",
        )
        .await
        .unwrap();
    let settings = Settings::new(&database);
    let (mut process, http) = Process::serve(&settings);
    let of = |user: &str| events(user, user, "2026-03-10")[1].clone();
    let body = json!([of("ann"), of("bob")]);
    let durable = http.query("ack=durable");
    assert_eq!(durable.post("/v1/interactions", &body).await.status, 202);
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted)";
    eventually("the COPY to wait", async || {
        one::<bool>(&client, waits).await
    })
    .await;
    let erasing = {
        let database = database.clone();
        move || users(&database, &["erase", "--user-id", "ann", "--json"])
    };
    let erased = json_of(&tokio::task::spawn_blocking(erasing).await.unwrap());
    assert_eq!(erased["users"][0]["interaction_events"], 0, "{erased}");
    client
        .batch_execute("SELECT pg_advisory_unlock(4711)")
        .await
        .unwrap();
    eventually("the batch", async || rows(&client, "bob").await == 1).await;
    assert_eq!(rows(&client, "ann").await, 0);
    let booked = "SELECT sum(row_count)::bigint FROM ingest_removed_rows WHERE kind = 'erasure'";
    assert_eq!(one::<i64>(&client, booked).await, 1);
    assert!(process.stop().success());
    settings.assert_verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_can_stay_without_their_user_and_anonymous_ids_can_go_with_them() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    client
        .batch_execute("CREATE TABLE rest PARTITION OF interaction_events DEFAULT")
        .await
        .unwrap();
    let settings = Settings::new(&database);
    let (mut process, http) = Process::serve(&settings);
    let mut event = events("a", "ann", "2026-03-10")[1].clone();
    event["meta"] =
        json!({"deep": [{"user_id": "ann", "page": "/"}], "note": "\"user_id_hash\": \"x\""});
    let mut visit = click("v");
    visit["anonymous_id"] = "visitor of ann".into();
    let reply = http.post("/v1/interactions", &json!([event, visit])).await;
    assert_eq!(reply.settled(), (2, 0, 0, 0), "{}", reply.text);
    // A service would move the row out of the DEFAULT partition, and then it may be shown twice.
    assert!(process.stop().success());
    // One row in the DEFAULT partition.
    client
        .batch_execute(
            "INSERT INTO interaction_events SELECT (stored).* FROM (
                 SELECT jsonb_populate_record(i, jsonb_build_object('occurred_at', '2020-01-01', 'event_id', gen_random_uuid())) AS stored
                   FROM interaction_events AS i WHERE meta ? 'deep') AS one;
             INSERT INTO ingest_ledger (instance_id, stream, table_name, settled, stored)
             VALUES (gen_random_uuid(), 1, 'interaction_events', 0, 1)",
        )
        .await
        .unwrap();
    // What is shown is what would be done.
    let shown = users(
        &database,
        &["erase", "--user-id", "ann", "--keep-rows", "--dry-run"],
    );
    assert!(
        said(&shown).contains("2 interactions and 0 assignments from before")
            && said(&shown).contains("would be cut off from the user"),
        "{}",
        said(&shown)
    );
    let erased = json_of(&users(
        &database,
        &["erase", "--user-id", "ann", "--keep-rows", "--json"],
    ));
    assert_eq!(erased["users"][0]["interaction_events"], 2, "{erased}");
    assert_eq!(erased["anonymous_ids"], json!([key("visitor of ann")]));
    let left = texts(
        &client,
        "SELECT concat_ws(' ', user_key, session_id, meta) FROM interaction_events WHERE meta ? 'deep'",
    )
    .await;
    assert_eq!(left.len(), 2);
    for row in &left {
        assert!(
            row.contains("\"page\": \"/\"") && row.contains("\\\"user_id_hash\\\": \\\"x\\\""),
            "{row}"
        );
        assert!(
            !row.contains(&key("ann"))
                && !row.contains(&key("visitor of ann"))
                && !row.contains(&key("s1")),
            "{row}"
        );
    }
    let (mut process, http) = Process::serve(&settings);
    // A retry is known as a duplicate of nothing, and left out.
    assert_eq!(
        http.post("/v1/interactions", &json!([event]))
            .await
            .settled(),
        (1, 0, 0, 0)
    );
    assert_eq!(rows(&client, "ann").await, 0);
    assert_eq!(rows(&client, "visitor of ann").await, 1);
    // The anonymous id was found before; it is erased by its hash.
    let hash = erased["anonymous_ids"][0].as_str().unwrap().to_owned();
    let text = users(&database, &["erase", "--user-key", &hash]);
    assert!(said(&text).contains("1 interactions"), "{}", said(&text));
    assert_eq!(rows(&client, "visitor of ann").await, 0);
    assert!(process.stop().success());
    settings.assert_verified();

    for (arguments, words) in [
        (vec!["erase", "--user-key", "abc"], "64 hexadecimal digits"),
        (vec!["erase", "--user-id", " "], "blank"),
        (vec!["erase"], "--user-id"),
        (
            vec!["export", "--user-id", "x", "--user-key", hash.as_str()],
            "cannot be used with",
        ),
        (
            vec!["erase", "--user-id", "x", "--before", "yesterday"],
            "2026-05-24T10:00:00Z",
        ),
    ] {
        let refused = users(&database, &arguments);
        assert!(
            !refused.status.success() && said(&refused).contains(words),
            "{arguments:?}: {}",
            said(&refused)
        );
    }
}
