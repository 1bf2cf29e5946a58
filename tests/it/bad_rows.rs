//! Promise: a bad row affects no other row, for any SQLSTATE; a fault of the table quarantines
//! nothing.

use std::time::{Duration, Instant};

use recsys_ingest::event::table::Table;
use serde_json::{Value, json};

use crate::harness::{
    Database, SOON, Service, Settings, assigned, click, eventually, one, rows_as_text, shown, texts,
};

/// Codes that a trigger may raise for one row. The last ones normally mean a lost connection, a
/// failed transaction or a lack of resources; a trigger can raise them too.
const CODES: [&str; 33] = [
    "21000", "22012", "22P03", "23000", "23505", "23514", "0A000", "2F005", "38000", "39000",
    "42P01", "42501", "44000", "54000", "55000", "57000", "P0001", "P0002", "XX000", "XX001",
    "ZZ123", "45000", "3F000", "57014", "57P01", "55P03", "08006", "08P01", "25P02", "40001",
    "53100", "28000", "58030",
];

/// Raises the code that the row's mark names.
pub const RAISE: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE mark text := coalesce(to_jsonb(NEW) ->> 'item_id', to_jsonb(NEW) ->> 'surface');
    BEGIN
        IF mark LIKE 'poison %' THEN
            RAISE EXCEPTION 'refused: %', mark USING ERRCODE = split_part(mark, ' ', 2);
        END IF;
        RETURN NEW;
    END $$;";

async fn service() -> Service {
    Service::with(one_lane).await
}

fn one_lane(settings: Settings) -> Settings {
    settings
        .with("--writers", "1")
        .with("--flush-waited-after", "20ms")
}

/// An event with an id, and the mark that `RAISE` looks for.
pub fn event(table: Table, id: &str, mark: Option<&str>) -> Value {
    let (mut event, field) = match table {
        Table::Exposures => (shown(id), "surface"),
        Table::Interactions => (click(id), "item_id"),
        Table::Assignments => (assigned(id), "variant"),
    };
    if let Some(mark) = mark {
        event[field] = json!(mark);
    }
    event
}

fn path(table: Table) -> &'static str {
    table.path()
}

/// `count` events; those at the indexes `bad` carry the mark.
fn body(table: Table, name: &str, count: usize, bad: &[usize], mark: &str) -> Value {
    (0..count)
        .map(|n| {
            event(
                table,
                &format!("{name} {n}"),
                bad.contains(&n).then_some(mark),
            )
        })
        .collect()
}

/// Indexes and codes of the events that an answer lists as quarantined.
fn quarantined(reply: &crate::harness::Reply) -> Vec<(u64, String)> {
    let all = reply.json["quarantined"].as_array();
    all.unwrap_or_else(|| panic!("{} {}", reply.status, reply.text))
        .iter()
        .map(|bad| {
            let code = bad["code"].as_str().unwrap().to_owned();
            (bad["index"].as_u64().unwrap(), code)
        })
        .collect()
}

fn cli(database: &Database, arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .arg("quarantine")
        .args(arguments)
        .arg(format!("--database-url={}", database.url()))
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text.push_str(&String::from_utf8(output.stderr).unwrap());
    (output.status.code().unwrap_or(-1), text)
}

async fn readiness(service: &Service) -> (String, String) {
    let reply = service.client().get("/readyz").await;
    let status = reply.json["status"].as_str().unwrap().to_owned();
    (status, reply.json["reasons"].to_string())
}

/// Runs `quarantine retry` until its output contains `expected`: at first another session may hold
/// a partition's locks.
async fn retry(database: &Database, arguments: &[&str], expected: &str) -> String {
    let started = Instant::now();
    loop {
        let (_, text) = cli(database, &[&["retry"], arguments].concat());
        if text.contains(expected) {
            return text;
        }
        assert!(
            text.contains("locks are taken") && started.elapsed() < SOON,
            "not {expected}: {text}"
        );
    }
}

/// Repeats a statement until it succeeds: the service's own checks may hold a lock on the table
/// at first.
async fn execute_anyway(database: &Database, sql: &str) {
    let client = database.connect().await;
    eventually(sql, async || client.batch_execute(sql).await.is_ok()).await;
}

/// Raises each of `CODES` in a batch of many rows, in a batch of one row, and at `durable`. The
/// trigger is on the parent or on a leaf.
async fn every_code_is_set_aside_alone(table: Table, timing: &str, on_a_leaf: bool) {
    let service = service().await;
    let database = &service.database;
    let first = event(table, "first", None);
    let reply = service.client().post(path(table), &first).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
    let relation = match on_a_leaf {
        false => table.as_str().to_owned(),
        true => {
            let leaf = format!("SELECT tableoid::regclass::text FROM {table} LIMIT 1");
            one(&database.connect().await, &leaf).await
        }
    };
    database
        .execute(&format!(
            "{RAISE}
             CREATE {} FOR EACH ROW EXECUTE FUNCTION refuse()",
            timing.replace("{relation}", &relation)
        ))
        .await;

    let (mut good, mut bad) = (1, 0);
    for code in CODES {
        let mark = format!("poison {code}");
        let many = body(table, code, 30, &[3, 17, 29], &mark);
        let reply = service.client().post(path(table), &many).await;
        assert_eq!(reply.settled(), (27, 0, 3, 0), "{code}: {}", reply.text);
        let expected = [3, 17, 29].map(|index| (index, code.to_owned()));
        assert_eq!(quarantined(&reply), expected);
        let message = reply.json["quarantined"][0]["message"].as_str().unwrap();
        assert!(message.contains(&format!("refused: {mark}")), "{message}");

        // The only row of its batch.
        let alone = event(table, &format!("{code} alone"), Some(&mark));
        let reply = service.client().post(path(table), &alone).await;
        assert_eq!(reply.settled(), (0, 0, 1, 0), "{code}: {}", reply.text);
        assert_eq!(quarantined(&reply), [(0, code.to_owned())]);

        let durable = service.client().query("ack=durable");
        let reply = durable
            .post(
                path(table),
                &event(table, &format!("{code} durable"), Some(&mark)),
            )
            .await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        good += 27;
        bad += 5;
    }
    eventually("the last row in quarantine", async || {
        database.count("ingest_quarantine").await == bad
    })
    .await;
    assert_eq!(database.count(table.as_str()).await, good);

    // Retried while the trigger exists, and again after it is dropped.
    let still = format!("0 stored, 0 were stored already, {bad} still refused");
    retry(database, &["--all"], &still).await;
    assert_eq!(database.count("ingest_quarantine").await, bad);
    execute_anyway(database, &format!("DROP TRIGGER refuse ON {relation}")).await;
    retry(database, &["--all"], &format!("{bad} stored, 0 were")).await;
    assert_eq!(database.count(table.as_str()).await, good + bad);
    assert_eq!(database.count("ingest_quarantine").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_of_any_code_raised_by_a_trigger_is_set_aside_alone() {
    let timing = "TRIGGER refuse BEFORE INSERT ON {relation}";
    every_code_is_set_aside_alone(Table::Interactions, timing, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_of_any_code_raised_on_a_leaf_is_set_aside_alone() {
    let timing = "TRIGGER refuse AFTER INSERT ON {relation}";
    every_code_is_set_aside_alone(Table::Interactions, timing, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exposure_of_any_code_raised_by_a_trigger_is_set_aside_alone() {
    let timing = "TRIGGER refuse BEFORE INSERT ON {relation}";
    every_code_is_set_aside_alone(Table::Exposures, timing, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_of_any_code_raised_at_commit_is_set_aside_alone() {
    let timing =
        "CONSTRAINT TRIGGER refuse AFTER INSERT ON {relation} DEFERRABLE INITIALLY DEFERRED";
    every_code_is_set_aside_alone(Table::Interactions, timing, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exposure_of_any_code_raised_at_commit_on_a_leaf_is_set_aside_alone() {
    let timing =
        "CONSTRAINT TRIGGER refuse AFTER INSERT ON {relation} DEFERRABLE INITIALLY DEFERRED";
    every_code_is_set_aside_alone(Table::Exposures, timing, true).await;
}

#[tokio::test]
async fn what_postgres_itself_refuses_in_a_row_is_set_aside_alone() {
    let service = service().await;
    let database = &service.database;
    let reply = service.interactions(&click("first")).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
    database
        .execute(
            "CREATE INDEX ON interaction_events ((meta ->> 'pad'));
             ALTER TABLE interaction_events ADD CHECK (1 / position > -1);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE found text;
             BEGIN
                 IF NEW.item_id = 'two' THEN
                     found := (SELECT 'x' FROM generate_series(1, 2));
                 ELSIF NEW.item_id = 'nowhere' THEN
                     EXECUTE 'INSERT INTO nowhere VALUES (1)';
                 ELSIF NEW.item_id = 'elsewhere' THEN
                     NEW.occurred_at := NEW.occurred_at + interval '40 days';
                 ELSIF NEW.item_id = 'assert' THEN
                     ASSERT false;
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER look BEFORE INSERT ON interaction_events
                FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await;
    let mut events: Vec<_> = (0..20).map(|n| click(&format!("good {n}"))).collect();
    // More than a third of a page, and incompressible: too large for an index entry.
    let pad: String = (0..3000_u32)
        .map(|n| char::from_u32(0x4e00 + n.wrapping_mul(2_654_435_761) % 20_000).unwrap())
        .collect();
    events[2]["meta"] = json!({ "pad": pad });
    events[4]["position"] = json!(0);
    events[6]["item_id"] = json!("two");
    events[8]["item_id"] = json!("nowhere");
    events[10]["item_id"] = json!("elsewhere");
    events[12]["item_id"] = json!("assert");
    let reply = service.interactions(&json!(events)).await;
    assert_eq!(reply.settled(), (14, 0, 6, 0), "{}", reply.text);
    let codes = [
        (2, "54000"),
        (4, "22012"),
        (6, "21000"),
        (8, "42P01"),
        (10, "0A000"),
        (12, "P0004"),
    ];
    let codes = codes.map(|(index, code)| (index, code.to_owned()));
    assert_eq!(quarantined(&reply), codes);
}

#[tokio::test]
async fn a_row_without_a_place_below_its_partition_is_set_aside_alone() {
    let service = service().await;
    service
        .database
        .execute(
            "CREATE TABLE march PARTITION OF interaction_events
                FOR VALUES FROM ('2026-03-01 UTC') TO ('2026-04-01 UTC') PARTITION BY RANGE (occurred_at);
             CREATE TABLE march_10 PARTITION OF march
                FOR VALUES FROM ('2026-03-10 UTC') TO ('2026-03-11 UTC')",
        )
        .await;
    let mut events = body(Table::Interactions, "x", 10, &[], "");
    events[4]["occurred_at"] = json!("2026-03-20T08:00:00Z");
    let reply = service.interactions(&events).await;
    assert_eq!(reply.settled(), (9, 0, 1, 0), "{}", reply.text);
    assert_eq!(quarantined(&reply), [(4, "23514".to_owned())]);
}

#[tokio::test]
async fn a_row_that_fails_alone_is_judged_by_the_rows_behind_it() {
    let service = service().await;
    let database = &service.database;
    database
        .execute(&format!(
            "{RAISE} CREATE TRIGGER refuse BEFORE INSERT ON interaction_events
                FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await;
    // The table is empty: the service cannot know yet whether the row or the table is at fault.
    let client = service.client().query("ack=durable");
    let bad = event(Table::Interactions, "bad", Some("poison P0001"));
    assert_eq!(client.post("/v1/interactions", &bad).await.status, 202);
    eventually("readiness that tells of refused rows", async || {
        let (status, reasons) = readiness(&service).await;
        status == "degraded" && reasons.contains("Postgres refuses")
    })
    .await;
    assert_eq!(database.count("ingest_quarantine").await, 0);
    // The row behind it is stored.
    let reply = service.interactions(&click("good")).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    assert_eq!(database.count("ingest_quarantine").await, 1);
    eventually("readiness", async || readiness(&service).await.0 == "ready").await;
    // From now on a stored row proves that the table takes rows.
    let bad = event(Table::Interactions, "bad too", Some("poison P0001"));
    assert_eq!(service.interactions(&bad).await.settled(), (0, 0, 1, 0));
}

/// A broken table quarantines nothing, and takes all rows once it is mended.
async fn nothing_is_set_aside(service: &Service, breaks: &str, mends: &str) {
    let database = &service.database;
    execute_anyway(database, breaks).await;
    let client = service.client().query("ack=durable");
    for n in 0..30 {
        let reply = client
            .post("/v1/interactions", &click(&format!("single {n}")))
            .await;
        assert_eq!(reply.status, 202);
    }
    let many = body(Table::Interactions, "many", 50, &[], "");
    assert_eq!(client.post("/v1/interactions", &many).await.status, 202);
    eventually("a fault in readiness", async || {
        let (status, reasons) = readiness(service).await;
        status == "degraded" && reasons.contains("operator")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(database.count("ingest_quarantine").await, 0);
    execute_anyway(database, mends).await;
    eventually("the rows in the table", async || {
        database
            .count("interaction_events WHERE item_id = 'a'")
            .await
            >= 80
    })
    .await;
    assert_eq!(database.count("ingest_quarantine").await, 0);
    eventually("readiness", async || readiness(service).await.0 == "ready").await;
}

#[tokio::test]
async fn a_trigger_that_refuses_every_row_sets_nothing_aside() {
    for with_a_row in [false, true] {
        let service = service().await;
        if with_a_row {
            let reply = service.interactions(&click("first")).await;
            assert_eq!(reply.settled(), (1, 0, 0, 0));
        }
        nothing_is_set_aside(
            &service,
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON interaction_events
                 FOR EACH ROW EXECUTE FUNCTION refuse()",
            "DROP TRIGGER refuse ON interaction_events",
        )
        .await;
    }
}

#[tokio::test]
async fn a_deferred_trigger_that_refuses_every_row_sets_nothing_aside() {
    nothing_is_set_aside(
        &service().await,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = '23000'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON interaction_events
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
        "DROP TRIGGER refuse ON interaction_events",
    )
    .await;
}

#[tokio::test]
async fn a_column_of_another_type_sets_nothing_aside() {
    let service = service().await;
    nothing_is_set_aside(
        &service,
        "ALTER TABLE interaction_events ALTER received_at TYPE date",
        "ALTER TABLE interaction_events ALTER received_at TYPE timestamptz",
    )
    .await;
}

#[tokio::test]
async fn a_column_that_is_gone_sets_nothing_aside() {
    let service = service().await;
    nothing_is_set_aside(
        &service,
        "ALTER TABLE interaction_events RENAME position TO place",
        "ALTER TABLE interaction_events RENAME place TO position",
    )
    .await;
}

#[tokio::test]
async fn a_required_column_that_no_event_has_sets_nothing_aside() {
    let service = service().await;
    nothing_is_set_aside(
        &service,
        "ALTER TABLE interaction_events ADD campaign text NOT NULL",
        "ALTER TABLE interaction_events ALTER campaign DROP NOT NULL",
    )
    .await;
}

const SKIP: &str = "
    CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF 'skip' IN (to_jsonb(NEW) ->> 'item_id', to_jsonb(NEW) ->> 'surface', to_jsonb(NEW) ->> 'variant') THEN
            RETURN NULL;
        END IF;
        RETURN NEW;
    END $$;";

#[tokio::test]
async fn a_row_that_a_trigger_leaves_out_is_set_aside_and_never_called_committed() {
    for table in Table::ALL {
        for on_a_leaf in [false, true] {
            let service = service().await;
            let database = &service.database;
            let reply = service
                .client()
                .post(path(table), &event(table, "first", None))
                .await;
            assert_eq!(reply.settled(), (1, 0, 0, 0));
            let relation: String = match on_a_leaf {
                false => table.as_str().to_owned(),
                true => {
                    let leaf = format!("SELECT tableoid::regclass::text FROM {table} LIMIT 1");
                    one(&database.connect().await, &leaf).await
                }
            };
            database
                .execute(&format!(
                    "{SKIP} CREATE TRIGGER skip BEFORE INSERT ON {relation}
                        FOR EACH ROW EXECUTE FUNCTION skip()"
                ))
                .await;
            let many = body(table, "many", 20, &[0, 7, 19], "skip");
            let reply = service.client().post(path(table), &many).await;
            assert_eq!(reply.settled(), (17, 0, 3, 0), "{}", reply.text);
            let expected = [0, 7, 19].map(|index| (index, "IN002".to_owned()));
            assert_eq!(quarantined(&reply), expected);
            let message = reply.json["quarantined"][0]["message"].as_str().unwrap();
            assert!(message.contains("trigger"), "{message}");
            let alone = event(table, "alone", Some("skip"));
            let reply = service.client().post(path(table), &alone).await;
            assert_eq!(reply.settled(), (0, 0, 1, 0), "{}", reply.text);
            // Sent again: good rows are duplicates, and quarantine holds each refused row once.
            let reply = service.client().post(path(table), &many).await;
            assert_eq!(reply.settled(), (0, 17, 3, 0), "{}", reply.text);
            assert_eq!(database.count("ingest_quarantine").await, 4);
            assert_eq!(database.count(table.as_str()).await, 18);
            let sample =
                format!("recsys_ingest_events_total{{table=\"{table}\",outcome=\"quarantined\"}}");
            assert_eq!(service.metric(&sample).await, 4.0);

            let text = retry(database, &["--all"], "4 still refused").await;
            assert!(text.contains("trigger"), "{text}");
            assert_eq!(database.count("ingest_quarantine").await, 4);
            execute_anyway(database, &format!("DROP TRIGGER skip ON {relation}")).await;
            retry(database, &["--code", "IN002"], "4 stored").await;
            assert_eq!(database.count(table.as_str()).await, 22);
        }
    }
}

#[tokio::test]
async fn a_row_that_a_trigger_stores_itself_or_under_another_key_is_stored() {
    let service = service().await;
    let database = &service.database;
    let reply = service.interactions(&click("first")).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
    let leaf: String = one(
        &database.connect().await,
        "SELECT tableoid::regclass::text FROM interaction_events LIMIT 1",
    )
    .await;
    database
        .execute(&format!(
            "CREATE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.item_id = 'direct' AND pg_trigger_depth() = 1 THEN
                     INSERT INTO {leaf} SELECT (NEW).*;
                     RETURN NULL;
                 ELSIF NEW.item_id = 'rekeyed' THEN
                     NEW.event_id := gen_random_uuid();
                 ELSIF NEW.item_id = 'skip' THEN
                     RETURN NULL;
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER divert BEFORE INSERT ON interaction_events
                 FOR EACH ROW EXECUTE FUNCTION divert()"
        ))
        .await;
    let mut events: Vec<_> = (0..12).map(|n| click(&format!("{n}"))).collect();
    events[1]["item_id"] = json!("direct");
    events[4]["item_id"] = json!("rekeyed");
    events[5]["item_id"] = json!("skip");
    events[9]["item_id"] = json!("rekeyed");
    let reply = service.interactions(&json!(events)).await;
    assert_eq!(reply.settled(), (11, 0, 1, 0), "{}", reply.text);
    assert_eq!(quarantined(&reply), [(5, "IN002".to_owned())]);
    assert_eq!(database.count("interaction_events").await, 12);
}

#[tokio::test]
async fn a_row_that_quarantine_refuses_as_json_is_kept_as_bytes() {
    let service = service().await;
    let database = &service.database;
    database
        .execute(
            "ALTER TABLE interaction_events ADD CONSTRAINT \"kein Gift, ä\" CHECK (item_id <> 'poison');
             ALTER TABLE ingest_quarantine ADD CONSTRAINT picky
                CHECK (row ->> 'item_id' <> 'poison' AND message !~ '[^[:ascii:]]')",
        )
        .await;
    let mut events = body(Table::Interactions, "x", 8, &[2, 5], "poison");
    events[5]["value"] = json!(19.99);
    events[5]["meta"] = json!({"quoted": "a \"b\" \\ \u{7} é"});
    let reply = service.interactions(&events).await;
    assert_eq!(reply.settled(), (6, 0, 2, 0), "{}", reply.text);
    let sql = "SELECT (row IS NULL)::text || ' ' || (row_bytes IS NOT NULL)::text || ' '
                   || (message ~ '^[[:ascii:]]*$')::text || ' ' || sqlstate FROM ingest_quarantine";
    let forms = texts(&database.connect().await, sql).await;
    assert_eq!(forms, ["true true true 23514", "true true true 23514"]);

    let (code, text) = cli(database, &["list"]);
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    let id: i64 = one(
        &database.connect().await,
        "SELECT max(id) FROM ingest_quarantine",
    )
    .await;
    let (code, text) = cli(database, &["show", &id.to_string()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\"item_id\": \"poison\""), "{text}");
    retry(database, &["--all"], "2 still refused").await;
    database
        .execute("ALTER TABLE interaction_events DROP CONSTRAINT \"kein Gift, ä\"")
        .await;
    retry(database, &["--all"], "2 stored").await;
    let stored = rows_as_text(
        database,
        "SELECT value, meta FROM interaction_events WHERE value IS NOT NULL",
    )
    .await;
    assert_eq!(json!(stored)[0]["value"], "19.990000");
    assert_eq!(stored.len(), 1);
    assert_eq!(service.interactions(&events).await.settled(), (0, 8, 0, 0));
}

#[tokio::test]
async fn rows_that_cannot_be_set_aside_stay_in_the_spool() {
    let service = service().await;
    let database = &service.database;
    database
        .execute(
            "ALTER TABLE interaction_events ADD CHECK (item_id <> 'poison');
             ALTER TABLE ingest_quarantine RENAME TO gone",
        )
        .await;
    let client = service.client().query("ack=durable");
    let events = body(Table::Interactions, "x", 8, &[2, 5], "poison");
    assert_eq!(client.post("/v1/interactions", &events).await.status, 202);
    eventually("a fault in readiness", async || {
        readiness(&service).await.1.contains("operator")
    })
    .await;
    assert_eq!(database.count("interaction_events").await, 0);
    database
        .execute("ALTER TABLE gone RENAME TO ingest_quarantine")
        .await;
    eventually("the rows in quarantine", async || {
        database.count("ingest_quarantine").await == 2
    })
    .await;
    assert_eq!(database.count("interaction_events").await, 6);
}

#[tokio::test]
async fn readiness_is_degraded_while_every_row_is_set_aside() {
    let service = service().await;
    service
        .database
        .execute(&format!(
            "{SKIP} CREATE TRIGGER skip BEFORE INSERT ON interaction_events
                FOR EACH ROW EXECUTE FUNCTION skip()"
        ))
        .await;
    let all: Vec<_> = (0..40).collect();
    let bad = body(Table::Interactions, "x", 40, &all, "skip");
    assert_eq!(service.interactions(&bad).await.settled(), (0, 0, 40, 0));
    let (status, reasons) = readiness(&service).await;
    assert_eq!(status, "degraded");
    assert!(reasons.contains("quarantine"), "{reasons}");
    assert_eq!(
        service.interactions(&click("good")).await.settled(),
        (1, 0, 0, 0)
    );
    assert_eq!(readiness(&service).await.0, "ready");
}

#[tokio::test]
async fn a_batch_with_thousands_of_bad_rows_does_not_take_minutes() {
    let service = Service::with(|s| one_lane(s).with("--commit-timeout", "100s")).await;
    service
        .database
        .execute("ALTER TABLE interaction_events ADD CHECK (item_id <> 'poison')")
        .await;
    let every_other: Vec<_> = (0..6_000).filter(|n| n % 2 == 0).collect();
    let body = body(Table::Interactions, "x", 6_000, &every_other, "poison");
    let started = Instant::now();
    let reply = service.interactions(&body).await;
    assert_eq!(reply.settled(), (3_000, 0, 3_000, 0));
    assert!(started.elapsed() < 2 * SOON, "{:?}", started.elapsed());
    let indexes: Vec<_> = quarantined(&reply).into_iter().map(|(at, _)| at).collect();
    assert!(indexes.is_sorted(), "as in the body");
}
