//! Promise: item signals are what the day's exposures say, and a change of a day is never missed.

mod changes;
mod figures;
mod independent;
mod neighbors;

use std::process::Command;

use serde_json::Value;
use tokio_postgres::Client;

use crate::harness::{DEMO, Database, OTHER, texts};
use independent::{Limits, List};

/// Runs a command. Returns its exit code, standard output and standard error.
pub(crate) fn cli(database: &Database, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Runs `signals` and returns what it prints as JSON.
fn signals(database: &Database, arguments: &[&str]) -> Vec<Value> {
    let (code, out, err) = cli(database, &[&["signals", "--json"][..], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    let printed: Value = serde_json::from_str(&out).unwrap();
    printed.as_array().unwrap().clone()
}

/// A database whose exposures may be of any day.
async fn database() -> Database {
    let database = Database::with_tenants().await;
    database
        .execute("CREATE TABLE exposures_of_all_days PARTITION OF exposure_events DEFAULT")
        .await;
    database
}

/// Stores lists as they are, as adopted tables may hold them.
async fn store(client: &Client, lists: &[List]) {
    for list in lists {
        let items: Vec<Value> = (1..)
            .zip(&list.items)
            .map(|(rank, item)| serde_json::json!({"item_id": item, "rank": rank}))
            .collect();
        let response = serde_json::json!({ "items": items }).to_string();
        client
            .execute(
                "INSERT INTO exposure_events
                     (tenant_id, occurred_at, event_id, received_at, request_id, surface, segment,
                      session_id, algo_version, request, response)
                 VALUES ($1::text::uuid, $2::text::timestamptz, gen_random_uuid(), now(),
                         gen_random_uuid(), $3, '', $4, '', '{}', $5::text::jsonb)",
                &[
                    &list.tenant, &list.at, &list.surface, &list.session, &response,
                ],
            )
            .await
            .unwrap();
    }
}

/// The rows of a table of signals, as text.
async fn stored(client: &Client, table: &str) -> Vec<String> {
    let columns = match table {
        "item_popularity_daily" => "item_id",
        _ => "item_id || ' | ' || neighbor_id",
    };
    let sql = format!(
        "SELECT tenant_id || ' | ' || day || ' | ' || namespace || ' | ' || {columns} || ' | ' || trim_scale(score)
           FROM {table}"
    );
    let mut rows = texts(client, &sql).await;
    rows.sort();
    rows
}

/// When each row of both tables was written last.
async fn versions(client: &Client) -> Vec<String> {
    texts(
        client,
        "SELECT xmin || ' ' || ctid FROM item_popularity_daily
          UNION ALL SELECT xmin || ' ' || ctid FROM item_covisit_daily ORDER BY 1",
    )
    .await
}

/// Lists with all that is special: repeats, ids with white space around them, ids that sort otherwise
/// in other locales, lists without a session, a surface without a name, a session that saw too much.
fn lists() -> Vec<List> {
    let ids = [
        "a", "B", "b", "é", "z10", "z9", " a", "a\u{a0}", "Z", "\u{3000}", "", "10",
    ];
    let mut lists = Vec::new();
    let mut state: u64 = 42;
    let mut random = |below: usize| {
        // The generator of Knuth's MMIX: the same numbers on each machine.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for n in 0..400 {
        let item = |id: &str| id.to_owned();
        lists.push(List {
            tenant: [DEMO, DEMO, OTHER][random(3)],
            at: format!(
                "{} {:02}:00:00.000001+00",
                [
                    "2026-03-09", "2026-03-10", "2026-03-10", "2026-03-10", "2026-03-11"
                ][random(5)],
                random(24)
            ),
            surface: ["home", "home", "product", "", " home "][random(5)],
            session: match random(6) {
                0 => None,
                1 => Some("  ".to_owned()),
                2 => Some(format!(" s{} ", random(20))),
                _ => Some(format!("s{}", random(20))),
            },
            items: (0..random(6))
                .map(|_| item(ids[random(ids.len())]))
                .collect(),
        });
        if n % 100 == 0 {
            lists.push(List {
                tenant: DEMO,
                at: "2026-03-10 12:00:00+00".to_owned(),
                surface: "home",
                session: Some("robot".to_owned()),
                items: (0..70).map(|item| format!("r{}", n + item)).collect(),
            });
        }
    }
    // The ends of a day.
    for at in [
        "2026-03-10 00:00:00+00",
        "2026-03-10 23:59:59.999999+00",
        "2026-03-11 00:00:00+00",
    ] {
        lists.push(List {
            tenant: DEMO,
            at: at.to_owned(),
            surface: "product",
            session: Some("ends".to_owned()),
            items: vec![at.to_owned(), "a".to_owned()],
        });
    }
    lists
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signals_of_a_day_are_those_of_an_independent_computation() {
    let database = database().await;
    let client = database.connect().await;
    let lists = lists();
    store(&client, &lists).await;
    // Of other days and surfaces, and of this day by an earlier computation.
    client
        .batch_execute(&format!(
            "INSERT INTO item_popularity_daily (tenant_id, namespace, item_id, day, score) VALUES
                 ('{DEMO}', 'home', 'kept', '2026-03-08', 7), ('{DEMO}', 'elsewhere', 'kept', '2026-03-10', 7),
                 ('{DEMO}', 'home', 'stale', '2026-03-10', 7), ('{DEMO}', 'home', 'a', '2026-03-10', 7);
             INSERT INTO item_covisit_daily (tenant_id, namespace, item_id, neighbor_id, day, score) VALUES
                 ('{DEMO}', 'home', 'kept', 'a', '2026-03-08', 7), ('{DEMO}', 'elsewhere', 'a', 'b', '2026-03-10', 7),
                 ('{DEMO}', 'home', 'stale', 'a', '2026-03-10', 7), ('{DEMO}', 'home', 'a', 'stale', '2026-03-10', 7)"
        ))
        .await
        .unwrap();
    let others = [
        [
            format!("{DEMO} | 2026-03-08 | home | kept | 7"),
            format!("{DEMO} | 2026-03-10 | elsewhere | kept | 7"),
        ],
        [
            format!("{DEMO} | 2026-03-08 | home | kept | a | 7"),
            format!("{DEMO} | 2026-03-10 | elsewhere | a | b | 7"),
        ],
    ];
    for (flags, limits) in [
        (
            "",
            Limits {
                items: 1000,
                neighbors: 50,
                sessions: 2,
                session_items: 200,
            },
        ),
        (
            "--items-max 4 --neighbors-max 2 --sessions-min 1 --session-items-max 8",
            Limits {
                items: 4,
                neighbors: 2,
                sessions: 1,
                session_items: 8,
            },
        ),
        (
            "--items-max 1 --neighbors-max 1 --sessions-min 3 --session-items-max 9",
            Limits {
                items: 1,
                neighbors: 1,
                sessions: 3,
                session_items: 9,
            },
        ),
        (
            "",
            Limits {
                items: 1000,
                neighbors: 50,
                sessions: 2,
                session_items: 200,
            },
        ),
    ] {
        let days = "--from 2026-03-09 --to 2026-03-11";
        let arguments: Vec<&str> = days.split(' ').chain(flags.split_terminator(' ')).collect();
        let done = signals(&database, &arguments);
        let expected = independent::signals(&lists, limits);
        for (table, others, rows) in [
            ("item_popularity_daily", &others[0], &expected.popularity),
            ("item_covisit_daily", &others[1], &expected.covisitation),
        ] {
            let mut rows: Vec<String> = rows.iter().chain(others).cloned().collect();
            rows.sort();
            assert_eq!(stored(&client, table).await, rows, "{table} {flags}");
        }
        let sum = |pointer: &str| -> u64 {
            done.iter()
                .map(|day| day.pointer(pointer).unwrap().as_u64().unwrap())
                .sum()
        };
        let figures = [
            "/popularity/rows", "/covisit/rows", "/items_shown", "/sessions_left_out",
        ]
        .map(sum);
        let wanted = [
            expected.popularity.len() as u64,
            expected.covisitation.len() as u64,
            expected.shown,
            expected.sessions_left_out,
        ];
        assert_eq!(figures, wanted, "{flags}");

        // Once more changes nothing, and writes nothing.
        let before = versions(&client).await;
        let again = signals(&database, &arguments);
        assert_eq!(versions(&client).await, before);
        assert_eq!(again.len(), done.len());
        for day in &again {
            assert_eq!(
                (&day["popularity"]["changed"], &day["covisit"]["changed"]),
                (&0.into(), &0.into())
            );
        }
    }
    // One day of one tenant.
    database
        .execute("TRUNCATE item_popularity_daily, item_covisit_daily")
        .await;
    let one = signals(&database, &["--day", "2026-03-10", "--tenant", "other"]);
    assert_eq!(
        (one.len(), &one[0]["tenant"], &one[0]["day"]),
        (1, &"other".into(), &"2026-03-10".into())
    );
    let all = independent::signals(
        &lists,
        Limits {
            items: 1000,
            neighbors: 50,
            sessions: 2,
            session_items: 200,
        },
    );
    let of_it = |rows: Vec<String>| -> Vec<String> {
        let prefix = format!("{OTHER} | 2026-03-10 |");
        rows.into_iter()
            .filter(|row| row.starts_with(&prefix))
            .collect()
    };
    assert_eq!(
        stored(&client, "item_popularity_daily").await,
        of_it(all.popularity)
    );
    assert_eq!(
        stored(&client, "item_covisit_daily").await,
        of_it(all.covisitation)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_computed_is_named() {
    let database = database().await;
    for (arguments, code, words) in [
        (&["signals"] as &[&str], 2, "--day"),
        (&["signals", "--from", "2026-03-10"], 2, "--to"),
        (
            &["signals", "--day", "2026-03-10", "--changed"],
            2,
            "--changed",
        ),
        (&["signals", "--day", "10.3.2026"], 2, "YYYY-MM-DD"),
        (
            &["signals", "--changed", "--session-items-max", "1"],
            2,
            "session-items-max",
        ),
        (
            &["signals", "--from", "2026-03-10", "--to", "2026-03-09"],
            1,
            "is before --from",
        ),
        (
            &["signals", "--changed", "--tenant", "nobody"],
            1,
            "there is no tenant",
        ),
        (&["report", "join", "--threshold", "90"], 2, "from 0 to 1"),
    ] {
        let (ended, out, err) = cli(&database, arguments);
        assert!(
            ended == code && err.contains(words),
            "{arguments:?}: {ended} {out}{err}"
        );
    }
    let (code, out, _) = cli(&database, &["signals", "--day", "2026-03-10"]);
    assert_eq!((code, out.trim()), (0, "nothing to compute"));
    // A day that fails leaves the others, and its own signals, as they should be.
    let client = database.connect().await;
    let list = |at: &str, items: &[&str]| List {
        tenant: DEMO,
        at: format!("{at} 08:00+00"),
        surface: "home",
        session: None,
        items: items.iter().map(|&item| item.to_owned()).collect(),
    };
    store(
        &client,
        &[
            list("2026-03-09", &["a"]),
            list("2026-03-10", &["poison"]),
            list("2026-03-11", &["b"]),
        ],
    )
    .await;
    database
        .execute("ALTER TABLE item_popularity_daily ADD CONSTRAINT no_poison CHECK (item_id <> 'poison')")
        .await;
    let (code, out, err) = cli(
        &database,
        &["signals", "--from", "2026-03-09", "--to", "2026-03-11"],
    );
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("2026-03-10 of demo is not computed") && err.contains("no_poison"),
        "{err}"
    );
    assert_eq!(database.count("item_popularity_daily").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_only_computes_needs_the_rights_that_are_listed_and_no_others() {
    let database = database().await;
    let client = database.connect().await;
    store(&client, &lists()).await;
    let name: String = crate::harness::one(&client, "SELECT current_database()::text").await;
    let role = format!("jobs_{name}");
    let grants =
        include_str!("../../../deploy/role_jobs.sql").replace(" TO jobs", &format!(" TO {role}"));
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC; {grants}"
        ))
        .await;
    let as_role = Database::by(database.url().replace("postgres@", &format!("{role}@")));
    assert_eq!(
        signals(&as_role, &["--from", "2026-03-09", "--to", "2026-03-11"]).len(),
        6
    );
    for arguments in [
        &["signals", "--changed"] as &[&str],
        &["report", "join", "--day", "2026-03-10"],
    ] {
        let (code, out, err) = cli(&as_role, arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    }
    let reader = as_role.connect().await;
    let lines: i64 = crate::harness::one(&reader, "SELECT count(*) FROM ingest_join_quality").await;
    assert_eq!(lines, 0);
    let denied = reader.batch_execute("DELETE FROM exposure_events").await;
    assert!(denied.is_err());
}
