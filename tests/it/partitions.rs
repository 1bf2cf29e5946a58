//! Promise: an insert never fails because a partition is missing, and a wrong clock cannot create
//! thousands of tables.

use serde_json::{Value, json};

use crate::harness::{Database, Rig, Service, click, eventually, one, shown, texts};

/// Clicks at these times; the time is also the id.
fn clicks_at(times: impl IntoIterator<Item = impl ToString>) -> Value {
    times
        .into_iter()
        .map(|at| {
            let at = at.to_string();
            let mut event = click(&at);
            event["occurred_at"] = json!(at);
            event
        })
        .collect()
}

/// Time and partition of each row, in the order of time.
async fn places(database: &Database, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT occurred_at::text || ' ' || tableoid::regclass FROM {table} ORDER BY occurred_at"
    );
    texts(&database.connect().await, &sql).await
}

/// Names and bounds of the partitions that match `like`, which leaves out those made ahead of
/// time.
async fn bounds(database: &Database, table: &str, like: &str) -> Vec<String> {
    let sql = format!(
        "SELECT c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid)
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = '{table}'::regclass AND c.relname LIKE '{table}_{like}'
          ORDER BY 1"
    );
    texts(&database.connect().await, &sql).await
}

#[tokio::test]
async fn events_on_either_side_of_midnight_lie_in_their_own_days() {
    let service = Service::start().await;
    let events = clicks_at([
        "2026-03-10T23:59:59.999999Z",
        "2026-03-11T00:00:00Z",
        // Digits below a microsecond are cut off, so this is still the same day.
        "2026-03-11T23:59:59.9999999Z",
        // Midnight at +05:30; partitions begin at midnight in UTC.
        "2026-03-13T00:00:00+05:30",
        "2026-02-28T23:59:59.999999Z",
        "2026-03-01T00:00:00Z",
        "2028-02-28T23:59:59.999999Z",
        "2028-02-29T00:00:00Z",
        "2028-02-29T23:59:59.999999Z",
        "2028-03-01T00:00:00Z",
        "2027-12-31T23:59:59.999999Z",
        "2028-01-01T00:00:00Z",
    ]);
    assert_eq!(service.interactions(&events).await.settled(), (12, 0, 0, 0));
    assert_eq!(
        places(&service.database, "interaction_events").await,
        [
            "2026-02-28 23:59:59.999999+00 interaction_events_2026_02_28",
            "2026-03-01 00:00:00+00 interaction_events_2026_03_01",
            "2026-03-10 23:59:59.999999+00 interaction_events_2026_03_10",
            "2026-03-11 00:00:00+00 interaction_events_2026_03_11",
            "2026-03-11 23:59:59.999999+00 interaction_events_2026_03_11",
            "2026-03-12 18:30:00+00 interaction_events_2026_03_12",
            "2027-12-31 23:59:59.999999+00 interaction_events_2027_12_31",
            "2028-01-01 00:00:00+00 interaction_events_2028_01_01",
            "2028-02-28 23:59:59.999999+00 interaction_events_2028_02_28",
            "2028-02-29 00:00:00+00 interaction_events_2028_02_29",
            "2028-02-29 23:59:59.999999+00 interaction_events_2028_02_29",
            "2028-03-01 00:00:00+00 interaction_events_2028_03_01",
        ]
    );
    assert_eq!(
        bounds(&service.database, "interaction_events", "2028_02_29").await,
        [
            "interaction_events_2028_02_29 FOR VALUES FROM ('2028-02-29 00:00:00+00') TO ('2028-03-01 00:00:00+00')"
        ]
    );
}

#[tokio::test]
async fn one_body_may_spread_over_forty_days() {
    let service = Service::start().await;
    let first: jiff::Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
    let times = (0..40).map(|day| first + jiff::SignedDuration::from_hours(24 * (day * 7 % 40)));
    let reply = service.interactions(&clicks_at(times)).await;
    assert_eq!(reply.settled(), (40, 0, 0, 0));
    let parts = "SELECT count(DISTINCT tableoid) FROM interaction_events";
    assert_eq!(
        one::<i64>(&service.database.connect().await, parts).await,
        40
    );
}

#[tokio::test]
async fn partitions_are_made_ahead_for_both_tables_at_start() {
    let service = Service::with(|s| s.with("--partitions-ahead", "5")).await;
    let database = &service.database;
    eventually("six days of each table", async || {
        let sql = "SELECT count(*) FROM pg_inherits
                    WHERE inhparent IN ('exposure_events'::regclass, 'interaction_events'::regclass)";
        one::<i64>(&database.connect().await, sql).await == 12
    })
    .await;
    eventually("the metric", async || {
        let sample = "recsys_ingest_partitions_ahead_seconds{table=\"exposure_events\"}";
        (5.0..=6.0).contains(&(service.metric(sample).await / 86_400.0))
    })
    .await;
}

#[tokio::test]
async fn weeks_begin_on_mondays_and_months_on_the_first() {
    let times = [
        "2026-03-08T23:59:59.999999Z",
        "2026-03-09T00:00:00Z",
        "2026-03-31T12:00:00Z",
    ];
    let weekly = Service::with(|s| s.with("--partition-interval", "week")).await;
    assert_eq!(weekly.interactions(&clicks_at(times)).await.settled().0, 3);
    assert_eq!(
        bounds(&weekly.database, "interaction_events", "2026_03%").await,
        [
            "interaction_events_2026_03_02 FOR VALUES FROM ('2026-03-02 00:00:00+00') TO ('2026-03-09 00:00:00+00')",
            "interaction_events_2026_03_09 FOR VALUES FROM ('2026-03-09 00:00:00+00') TO ('2026-03-16 00:00:00+00')",
            "interaction_events_2026_03_30 FOR VALUES FROM ('2026-03-30 00:00:00+00') TO ('2026-04-06 00:00:00+00')",
        ]
    );
    let monthly = Service::with(|s| s.with("--partition-interval", "month")).await;
    let mut exposure = shown("a");
    exposure["occurred_at"] = json!("2028-02-29T23:59:59.999999Z");
    assert_eq!(monthly.exposures(&exposure).await.settled().0, 1);
    assert_eq!(
        bounds(&monthly.database, "exposure_events", "2028%").await,
        [
            "exposure_events_2028_02 FOR VALUES FROM ('2028-02-01 00:00:00+00') TO ('2028-03-01 00:00:00+00')"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_race_for_new_days_make_each_partition_once() {
    let database = Database::with_tenants().await;
    let instances = [
        Service::on(&database, |s| s).await,
        Service::on(&database, |s| s).await,
    ];
    for day in 1..=10 {
        let mut posts = tokio::task::JoinSet::new();
        for n in 0..6 {
            let mut event = click(&format!("{day} {n}"));
            event["occurred_at"] = json!(format!("2026-04-{day:02}T00:00:00Z"));
            let client = instances[n % 2].client().clone();
            posts.spawn(async move { client.post("/v1/interactions", &event).await });
        }
        for reply in posts.join_all().await {
            assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
        }
    }
    let made = bounds(&database, "interaction_events", "2026_04%").await;
    assert_eq!(made.len(), 10, "{made:?}");
    assert_eq!(database.count("interaction_events").await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_partition_budget_wait_in_quarantine_and_harm_no_others() {
    let service = Service::with(|s| {
        // Long enough for the posts below to share a batch.
        s.with("--partitions-per-hour", "2")
            .with("--flush-after", "200ms")
            .with("--flush-waited-after", "200ms")
            .with("--writers", "1")
    })
    .await;
    let spend = clicks_at(["2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"]);
    assert_eq!(service.interactions(&spend).await.settled().0, 2);

    let good = clicks_at(["2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"]);
    let bad = clicks_at(["2026-03-01T11:00:00Z", "2026-03-03T00:00:00Z"]);
    let now = shown("now");
    let (good, bad, other) = tokio::join!(
        service.interactions(&good),
        service.interactions(&bad),
        service.exposures(&now),
    );
    assert_eq!(good.settled(), (2, 0, 0, 0), "{}", good.text);
    // One event of each body needs a partition that the budget does not allow.
    assert_eq!(bad.status, 200, "{}", bad.text);
    assert_eq!(bad.json["committed"], 1, "{}", bad.text);
    assert_eq!(bad.json["quarantined"][0]["index"], 1, "{}", bad.text);
    assert_eq!(bad.json["quarantined"][0]["code"], "IN001", "{}", bad.text);
    assert_eq!(
        other.json["quarantined"][0]["code"], "IN001",
        "{}",
        other.text
    );
    assert_eq!(service.database.count("interaction_events").await, 5);
    assert_eq!(service.database.count("ingest_quarantine").await, 2);
    // Partitions that exist or are made ahead of time do not count against the budget.
    let now = clicks_at([jiff::Timestamp::now()]);
    assert_eq!(service.interactions(&now).await.settled().0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gap_that_is_filled_in_a_longer_range_counts_against_the_budget() {
    let database = Database::with_tenants().await;
    let daily = Service::on(&database, |s| s).await;
    let days = clicks_at(["2026-03-10T00:00:00Z", "2026-03-12T00:00:00Z"]);
    assert_eq!(daily.interactions(&days).await.settled().0, 2);
    daily.stop().await.unwrap();

    // Weeks from now on: two days of this one have partitions, and three gaps do not.
    let weekly = Service::on(&database, |s| {
        s.with("--partition-interval", "week")
            .with("--partitions-per-hour", "2")
    })
    .await;
    let between = clicks_at([
        "2026-03-09T00:00:00Z", "2026-03-11T00:00:00Z", "2026-03-13T00:00:00Z",
    ]);
    let reply = weekly.interactions(&between).await;
    assert_eq!(reply.settled(), (2, 0, 1, 0), "{}", reply.text);
    assert_eq!(
        bounds(&database, "interaction_events", "2026_03%").await,
        [
            "interaction_events_2026_03_09 FOR VALUES FROM ('2026-03-09 00:00:00+00') TO ('2026-03-10 00:00:00+00')",
            "interaction_events_2026_03_10 FOR VALUES FROM ('2026-03-10 00:00:00+00') TO ('2026-03-11 00:00:00+00')",
            "interaction_events_2026_03_11 FOR VALUES FROM ('2026-03-11 00:00:00+00') TO ('2026-03-12 00:00:00+00')",
            "interaction_events_2026_03_12 FOR VALUES FROM ('2026-03-12 00:00:00+00') TO ('2026-03-13 00:00:00+00')",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_partition_budget_is_said_once_however_many_batches_meet_it() {
    let rig = Rig::start(|s| s.with("--partitions-per-hour", "1")).await;
    let path = "/v1/interactions";
    let spend = clicks_at(["2026-03-01T00:00:00Z"]);
    assert_eq!(rig.client.post(path, &spend).await.settled().0, 1);
    for hour in 10..20 {
        let late = clicks_at([format!("2026-03-03T{hour}:00:00Z")]);
        let reply = rig.client.post(path, &late).await;
        assert_eq!(
            reply.json["quarantined"][0]["code"], "IN001",
            "{}",
            reply.text
        );
    }
    let log = rig.process.log();
    let lines = log.matches("cannot make a partition that events need");
    assert_eq!(lines.count(), 1, "{log}");
}

#[tokio::test]
async fn a_partition_that_is_dropped_under_a_running_service_is_made_again() {
    let service = Service::start().await;
    assert_eq!(service.interactions(&click("a")).await.settled().0, 1);
    for round in 0..3 {
        service
            .database
            .execute("DROP TABLE interaction_events_2026_03_10")
            .await;
        let reply = service.interactions(&click(&format!("b {round}"))).await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
        assert_eq!(
            places(&service.database, "interaction_events").await,
            ["2026-03-10 08:00:00+00 interaction_events_2026_03_10"]
        );
    }
}
