//! Which days are computed by `--changed`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{cli, signals};
use crate::harness::{DEMO, Database, OTHER, Service, eventually, one, shown, texts};
use recsys_ingest::tenants::role::Role;

/// An exposure of a day.
fn shown_on(day: &str, name: &str) -> Value {
    let mut event = shown(name);
    event["occurred_at"] = format!("{day}T10:00:00Z").into();
    event
}

/// Tenants and days that `--changed` computes.
fn computed(database: &Database) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut days: Vec<String> = signals(database, &["--changed"])
        .iter()
        .map(|day| format!("{} {}", text(&day["tenant"]), text(&day["day"])))
        .collect();
    days.sort();
    days
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_computed_after_each_batch_that_adds_to_it_and_not_otherwise() {
    let service = Service::with(|s| s.with("--writers", "2")).await;
    let database = &service.database;
    let other = service.client().role("other", Role::Ingest);
    assert_eq!(computed(database), [] as [&str; 0]);

    let two_days = json!([
        shown_on("2026-03-10", "a"),
        shown_on("2026-03-11", "b"),
        shown_on("2026-03-11", "c")
    ]);
    assert_eq!(service.exposures(&two_days).await.settled().0, 3);
    assert_eq!(
        other
            .post("/v1/exposures", &shown_on("2026-03-10", "d"))
            .await
            .settled()
            .0,
        1
    );
    assert_eq!(
        computed(database),
        ["demo 2026-03-10", "demo 2026-03-11", "other 2026-03-10"]
    );
    let scores = "SELECT tenant_id || ' ' || day || ' ' || trim_scale(score) FROM item_popularity_daily ORDER BY 1";
    let client = database.connect().await;
    assert_eq!(
        texts(&client, scores).await,
        [
            format!("{DEMO} 2026-03-10 1"),
            format!("{DEMO} 2026-03-11 2"),
            format!("{OTHER} 2026-03-10 1"),
        ]
    );
    assert_eq!(computed(database), [] as [&str; 0]);

    // What is stored already changes nothing, and interactions are no exposures.
    assert_eq!(service.exposures(&two_days).await.settled().1, 3);
    assert_eq!(
        service
            .interactions(&crate::harness::click("e"))
            .await
            .settled()
            .0,
        1
    );
    assert_eq!(computed(database), [] as [&str; 0]);
    let marked = "SELECT count(*) FROM ingest_changed_days WHERE table_name = 'interaction_events'";
    assert_eq!(one::<i64>(&client, marked).await, 1);

    // A new event among known ones, of a day long gone by.
    let late = json!([shown_on("2026-03-11", "b"), shown_on("2026-03-10", "late")]);
    assert_eq!(service.exposures(&late).await.settled(), (1, 1, 0, 0));
    assert_eq!(
        signals(database, &["--changed", "--tenant", "other"]).len(),
        0
    );
    assert_eq!(computed(database), ["demo 2026-03-10"]);

    // A day that was computed by name is computed.
    assert_eq!(
        service
            .exposures(&shown_on("2026-03-11", "f"))
            .await
            .settled()
            .0,
        1
    );
    assert_eq!(signals(database, &["--day", "2026-03-11"]).len(), 1);
    assert_eq!(computed(database), [] as [&str; 0]);

    // Of a batch with a row that is set aside, and of that row once an operator has it stored.
    database
        .execute("ALTER TABLE exposure_events ADD CONSTRAINT no_poison CHECK (surface <> 'poison')")
        .await;
    let mut poison = shown_on("2026-03-10", "poison");
    poison["surface"] = "poison".into();
    let mixed = json!([poison, shown_on("2026-03-11", "g")]);
    assert_eq!(service.exposures(&mixed).await.settled(), (1, 0, 1, 0));
    assert_eq!(computed(database), ["demo 2026-03-11"]);
    database
        .execute("ALTER TABLE exposure_events DROP CONSTRAINT no_poison")
        .await;
    let (code, out, err) = cli(database, &["quarantine", "retry", "--all"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(computed(database), ["demo 2026-03-10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_commits_while_its_day_is_computed_is_computed_next_time() {
    let service = Service::start().await;
    let database = service.database.clone();
    assert_eq!(service.exposures(&shown("a")).await.settled().0, 1);

    // The run has read its events once it waits for the table to which it writes.
    let mut client = database.connect().await;
    let holder = client.transaction().await.unwrap();
    holder
        .batch_execute("LOCK TABLE item_popularity_daily IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let running = {
        let database = database.clone();
        tokio::task::spawn_blocking(move || computed(&database))
    };
    let observer = database.connect().await;
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'item_popularity_daily'::regclass";
    eventually("the run to wait", async || {
        one::<i64>(&observer, waits).await > 0
    })
    .await;
    // The lane does not wait for the run.
    assert_eq!(service.exposures(&shown("b")).await.settled().0, 1);
    holder.rollback().await.unwrap();
    assert_eq!(running.await.unwrap(), ["demo 2026-03-10"]);

    let score = "SELECT score::int FROM item_popularity_daily";
    assert_eq!(one::<i32>(&observer, score).await, 1);
    assert_eq!(computed(&database), ["demo 2026-03-10"]);
    assert_eq!(one::<i32>(&observer, score).await, 2);
    assert_eq!(computed(&database), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_while_lanes_commit_and_two_runs_compute() {
    let service =
        Service::with(|s| s.with("--writers", "4").with("--flush-waited-after", "1ms")).await;
    let database = service.database.clone();
    let posting = Arc::new(AtomicBool::new(true));
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (database, posting) = (database.clone(), Arc::clone(&posting));
        runs.spawn_blocking(move || {
            while posting.load(Ordering::Relaxed) {
                computed(&database);
            }
        });
    }
    let mut posts = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let client = service.client().clone();
        posts.spawn(async move {
            for n in 0..40 {
                let day = format!("2026-03-{:02}", 10 + n % 3);
                let event = shown_on(&day, &format!("{sender} {n}"));
                assert_eq!(client.post("/v1/exposures", &event).await.settled().0, 1);
            }
        });
    }
    posts.join_all().await;
    posting.store(false, Ordering::Relaxed);
    runs.join_all().await;
    computed(&database);
    let client = database.connect().await;
    let scores = "SELECT day || ' ' || trim_scale(score) FROM item_popularity_daily ORDER BY 1";
    assert_eq!(
        texts(&client, scores).await,
        ["2026-03-10 56", "2026-03-11 52", "2026-03-12 52"]
    );
    assert_eq!(computed(&database), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_marks_are_deleted_once_they_were_seen_and_begin_again() {
    let service = Service::start().await;
    let database = &service.database;
    let client = database.connect().await;
    assert_eq!(service.exposures(&shown("a")).await.settled().0, 1);
    assert_eq!(
        service
            .interactions(&crate::harness::click("b"))
            .await
            .settled()
            .0,
        1
    );
    let age = "UPDATE ingest_changed_days SET changed_at = now() - interval '36 days'";
    let marks = "SELECT count(*) FROM ingest_changed_days";
    let noted = "SELECT count(*) FROM ingest_computed_days";
    // Not before a run has seen it, however old it is; of interactions no run has to.
    database.execute(age).await;
    assert_eq!(signals(database, &["--day", "2026-01-01"]).len(), 0);
    assert_eq!(one::<i64>(&client, marks).await, 1);
    assert_eq!(computed(database), ["demo 2026-03-10"]);
    assert_eq!(
        (
            one::<i64>(&client, marks).await,
            one::<i64>(&client, noted).await
        ),
        (0, 0)
    );
    assert_eq!(service.exposures(&shown("c")).await.settled().0, 1);
    assert_eq!(computed(database), ["demo 2026-03-10"]);
    assert_eq!(
        (
            one::<i64>(&client, marks).await,
            one::<i64>(&client, noted).await
        ),
        (1, 1)
    );
}
