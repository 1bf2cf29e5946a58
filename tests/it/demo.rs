//! Promise: `demo` plays a shop whose numbers a person can check: they are those of the views, and
//! playing it again changes none.

use std::path::Path;
use std::process::Command;

use recsys_ingest::tenants::role::Role;
use serde_json::Value;

use crate::harness::{Service, blocking, key, one};

/// Runs `demo` with these arguments and variables alone; returns its exit code, its answer and what
/// it said.
fn demo(arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"));
    command
        .arg("demo")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(folder);
    let output = blocking(move || command.output().unwrap());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

const AT: &str = "2026-05-24T10:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn its_numbers_are_those_of_the_views_and_a_second_run_stores_nothing() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", service.client().address);
    let key = key("demo", Role::Ingest);
    let variables = [
        ("INGEST_URL", &*url),
        ("INGEST_API_KEY", &*key),
        ("DATABASE_URL", service.database.url()),
    ];
    let play = |arguments: &[&str]| {
        let arguments = [&["--json", "--at", AT][..], arguments].concat();
        let (code, out, err) = demo(&arguments, &variables, folder.path());
        assert_eq!(code, 0, "{out}{err}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let first = play(&[]);
    assert_eq!(first["is_as_played"], true, "{first}");
    assert_eq!(first["stored"], first["played"]);
    let surface = first["surface"].as_str().unwrap();
    let client = service.database.connect().await;
    let count = async |sql: &str| -> i64 {
        one(
            &client,
            &sql.replace("SURFACE", &format!("surface = '{surface}'")),
        )
        .await
    };
    let number = |path: &str| first.pointer(path).unwrap().as_i64().unwrap();
    for (path, sql) in [
        (
            "/stored/lists",
            "SELECT count(*) FROM recsys_exposures WHERE SURFACE",
        ),
        (
            "/stored/items",
            "SELECT sum(jsonb_array_length(response -> 'items')) FROM exposure_events WHERE SURFACE",
        ),
        (
            "/posted/assignments/events",
            "SELECT count(*) FROM experiment_assignments WHERE SURFACE",
        ),
        (
            "/stored/variants/B",
            "SELECT count(*) FROM recsys_exposures WHERE SURFACE AND data #>> '{context,experiment_variant}' = 'B'",
        ),
        (
            "/stored/interactions/click",
            "SELECT count(*) + (SELECT count(*) FROM interaction_events WHERE SURFACE AND request_id IS NULL) \
             FROM recsys_outcomes WHERE SURFACE AND data ->> 'event_type' = 'click'",
        ),
        (
            "/stored/orders",
            "SELECT count(*) / 2 FROM recsys_outcomes WHERE SURFACE AND data ->> 'event_type' = 'conversion'",
        ),
        (
            "/join/interactions",
            "SELECT interactions FROM ingest_join_quality_of('2026-05-24', '2026-05-24', NULL, '1h', '1h') AS q WHERE q.SURFACE",
        ),
        (
            "/join/joined",
            "SELECT joined FROM ingest_join_quality_of('2026-05-24', '2026-05-24', NULL, '1h', '1h') AS q WHERE q.SURFACE",
        ),
    ] {
        assert_eq!(count(sql).await, number(path), "{path}: {first}");
    }
    let revenue = format!(
        "SELECT round(sum((data ->> 'value')::numeric), 2)::text FROM recsys_outcomes \
         WHERE surface = '{surface}' AND data ->> 'event_type' = 'conversion'"
    );
    let revenue: String = one(&client, &revenue).await;
    assert_eq!(first["stored"]["revenue"], *revenue);
    assert_eq!(first["stored"]["ordered"], *revenue, "counted once");
    assert!(number("/join/without_token") > 0 && number("/join/token_unknown") > 0);
    // As the job that computes signals counts.
    let (code, _, err) = crate::signals::cli(
        &service.database,
        &["signals", "--day", &AT[..10], "--tenant", "demo"],
    );
    assert_eq!(code, 0, "{err}");
    let best = first["stored"]["popular"][0].as_array().unwrap();
    let score = format!(
        "SELECT score::bigint FROM item_popularity_daily WHERE namespace = '{surface}' AND item_id = '{}'",
        best[0].as_str().unwrap()
    );
    assert_eq!(one::<i64>(&client, &score).await, best[1].as_i64().unwrap());

    let second = play(&[]);
    for kind in ["exposures", "assignments", "interactions"] {
        let posted = &second["posted"][kind];
        assert_eq!(posted["duplicates"], posted["events"], "{second}");
        assert_eq!(first["posted"][kind]["duplicates"], 0);
    }
    assert_eq!(second["stored"], first["stored"]);
    // Another shop has other numbers.
    let other = play(&["--seed", "2", "--lists", "7"]);
    assert_eq!(other["stored"]["lists"], 7);
    assert_eq!(play(&[])["stored"], first["stored"]);

    // Each difference from what was played is noticed. Playing it again mends none: events are known by their
    // keys.
    service
        .database
        .execute(
            "CREATE TABLE saved_exposures AS TABLE exposure_events;
             CREATE TABLE saved_interactions AS TABLE interaction_events;
             CREATE TABLE saved_assignments AS TABLE ingest_assignments",
        )
        .await;
    let one_of = |table: &str, which: &str| {
        format!(
            "event_id = (SELECT event_id FROM {table} WHERE surface = '{surface}' AND {which} ORDER BY event_id LIMIT 1)"
        )
    };
    let (click, lost) = (
        one_of(
            "interaction_events",
            "event_type = 'click' AND request_id IS NOT NULL",
        ),
        one_of("interaction_events", "request_id IS NULL"),
    );
    let list = one_of("exposure_events", "true");
    let assignment = one_of("ingest_assignments", "true");
    for (what, sql) in [
        ("a list less", format!("UPDATE exposure_events SET surface = 'elsewhere' WHERE {list}")),
        (
            "an item less",
            format!("UPDATE exposure_events SET response = jsonb_set(response, '{{items}}', (response -> 'items') - 0) WHERE {list}"),
        ),
        ("another variant", format!("UPDATE ingest_assignments SET variant = 'Z' WHERE {assignment}")),
        (
            "a click twice",
            format!(
                "INSERT INTO interaction_events SELECT (twice).* FROM (
                     SELECT jsonb_populate_record(i, jsonb_build_object('event_id', gen_random_uuid())) AS twice
                       FROM interaction_events AS i WHERE {click}) AS one"
            ),
        ),
        ("a click less", format!("UPDATE interaction_events SET surface = 'elsewhere' WHERE {click}")),
        (
            "more revenue",
            format!("UPDATE interaction_events SET value = value + 1 WHERE surface = '{surface}' AND event_type = 'purchase'"),
        ),
        (
            "a click with the id of no list",
            format!("UPDATE interaction_events SET request_id = gen_random_uuid() WHERE {click}"),
        ),
        (
            "an id for a click that has lost it",
            format!("UPDATE interaction_events SET request_id = gen_random_uuid() WHERE {lost}"),
        ),
    ] {
        let changed = client.execute(&sql, &[]).await.unwrap();
        assert!(changed > 0, "{what}");
        let (code, out, err) = demo(&["--at", AT], &variables, folder.path());
        assert_eq!(code, 1, "{what}: {out}{err}");
        assert!(
            out.contains("DIFFERS") && err.contains(surface),
            "{what}: {out}{err}"
        );
        service
            .database
            .execute(
                "TRUNCATE exposure_events, interaction_events, ingest_assignments;
                 INSERT INTO exposure_events TABLE saved_exposures;
                 INSERT INTO interaction_events TABLE saved_interactions;
                 INSERT INTO ingest_assignments TABLE saved_assignments",
            )
            .await;
        assert_eq!(play(&[])["stored"], first["stored"], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_needs_and_what_it_was_refused() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", service.client().address);
    let (ingest, publish) = (key("demo", Role::Ingest), key("demo", Role::Publish));
    let at = ["--at", AT];
    for (arguments, variables, code, expected) in [
        (vec![], vec![], 1, "recsys-ingest dev"),
        (vec!["--url", &*url], vec![], 1, "--api-key"),
        (
            vec!["--url", &*url, "--key", "wrong"],
            vec![],
            1,
            "invalid_api_key",
        ),
        (
            vec!["--url", &*url, "--key", &*publish],
            vec![],
            1,
            "role_not_allowed",
        ),
        (
            vec!["--url", "http://127.0.0.1:1", "--key", &*ingest],
            vec![],
            1,
            "is the service running?",
        ),
        (
            vec!["--url", &*url, "--key", &*ingest, "--tenant", "other"],
            vec![],
            1,
            "tenant_mismatch",
        ),
        (
            vec!["--url", &*url, "--key", &*ingest, "--lists", "0"],
            vec![],
            2,
            "from 1 to 200",
        ),
        // Without the database it plays, and names the SQL.
        (
            vec!["--url", &*url, "--key", &*ingest],
            vec![],
            0,
            "SELECT count(*) AS lists",
        ),
        (
            vec!["--suite-dir", "nowhere"],
            vec![
                ("INGEST_URL", &*url),
                ("INGEST_API_KEY", &*ingest),
                ("DATABASE_URL", service.database.url()),
            ],
            1,
            "has no recsys-eval",
        ),
    ] {
        let arguments = [&at[..], &arguments].concat();
        let (ended, out, err) = demo(&arguments, &variables, folder.path());
        assert!(
            ended == code && format!("{out}{err}").contains(expected),
            "{arguments:?}: {ended}\n{out}\n{err}"
        );
    }
    // The environment file of a running dev is enough.
    let data = folder.path().join(".recsys-ingest");
    std::fs::create_dir(&data).unwrap();
    let env = format!(
        "INGEST_URL={url}\nINGEST_API_KEY={ingest}\nDATABASE_URL='{}'\n",
        service.database.url()
    );
    std::fs::write(data.join("dev.env"), env).unwrap();
    let (code, out, err) = demo(&at, &[], folder.path());
    assert_eq!(code, 0, "{out}{err}");
    for words in [
        "stored before", "as the orders say", "Most popular", "FROM recsys_exposures",
    ] {
        assert!(out.contains(words), "{out}");
    }
    assert!(!out.contains("DIFFERS"), "{out}");
}
