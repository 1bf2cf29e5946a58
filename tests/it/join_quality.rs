//! Promise: the report says how many interactions find their exposure, and why the others do not.

use serde_json::{Value, json};

use crate::harness::{Database, Service, one};
use crate::signals::cli;

/// An exposure of 2026-03-10 with the items a, b and c.
fn list(request: &str, at: &str, surface: &str) -> Value {
    json!({
        "event_id": format!("list {request} {at}"), "request_id": request, "surface": surface,
        "occurred_at": format!("2026-03-{at}Z"),
        "items": [{"item_id": "a", "rank": 1}, {"item_id": "b", "rank": 2}, {"item_id": "c", "rank": 3}],
    })
}

fn interaction(name: &str, at: &str, fields: &Value) -> Value {
    let mut event = json!({
        "event_id": name, "occurred_at": format!("2026-03-{at}Z"), "event_type": "click",
    });
    for (key, value) in fields.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

/// What the report says of a surface and day: all columns of counts in their order.
fn counts(lines: &Value, day: &str, surface: &str) -> [u64; 7] {
    let found: Vec<&Value> = lines
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["day"] == day && line["surface"] == surface && line["tenant"] == "demo")
        .collect();
    assert_eq!(found.len(), 1, "{day} {surface}: {lines}");
    [
        "interactions", "joined", "without_token", "token_unknown", "item_not_listed",
        "position_differs", "exposure_after",
    ]
    .map(|name| found[0][name].as_u64().unwrap())
}

fn report(database: &Database, arguments: &[&str]) -> Value {
    let (code, out, err) = cli(
        database,
        &[&["report", "join", "--json"][..], arguments].concat(),
    );
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_interaction_counts_once_with_what_keeps_it_from_its_exposure() {
    let service = Service::start().await;
    let database = &service.database;
    let early = interaction(
        "early",
        "10T09:05:00",
        &json!({"item_id": "a", "surface": "late", "request_id": "r9"}),
    );
    assert_eq!(service.interactions(&early).await.settled().0, 1);
    let lists = json!([
        list("r1", "10T08:00:00", "home"),
        // The list was logged twice: by the server and by the page.
        list("r1", "10T08:00:01", "home"),
        list("r2", "09T23:59:59", "product"),
        list("r3", "02T08:00:00", "home"),
        list("r4", "10T10:00:00", "home"),
        list("r9", "10T09:00:00", "late"),
    ]);
    assert_eq!(service.exposures(&lists).await.settled().0, 6);
    let other = service
        .client()
        .role("other", recsys_ingest::tenants::role::Role::Ingest);
    let theirs = list("of other", "10T08:00:00", "home");
    assert_eq!(other.post("/v1/exposures", &theirs).await.settled().0, 1);
    let clicks = json!([
        interaction(
            "1",
            "10T08:01:00",
            &json!({"item_id": "a", "surface": "home", "request_id": "r1"})
        ),
        interaction(
            "2",
            "10T08:02:00",
            &json!({"item_id": "b", "surface": "home", "request_id": "r1", "position": 2})
        ),
        interaction(
            "3",
            "10T08:03:00",
            &json!({"item_id": "b", "surface": "home", "request_id": "r1", "position": 1})
        ),
        interaction(
            "4",
            "10T08:04:00",
            &json!({"item_id": "x", "surface": "home", "request_id": "r1", "position": 1})
        ),
        interaction(
            "5",
            "10T08:05:00",
            &json!({"item_id": "a", "surface": "home"})
        ),
        interaction(
            "6",
            "10T08:06:00",
            &json!({"item_id": "a", "surface": "home", "request_id": "unknown"})
        ),
        interaction(
            "7",
            "10T08:07:00",
            &json!({"item_id": "a", "surface": "home", "request_id": "of other"})
        ),
        // Too long ago, and before the list was shown: within an hour, and not.
        interaction(
            "8",
            "10T08:08:00",
            &json!({"item_id": "a", "surface": "home", "request_id": "r3"})
        ),
        interaction(
            "9",
            "10T09:30:00",
            &json!({"item_id": "a", "surface": "home", "request_id": "r4"})
        ),
        interaction(
            "10",
            "10T08:30:00",
            &json!({"item_id": "a", "surface": "home", "request_id": "r4"})
        ),
        // Of the day before, and without a surface.
        interaction(
            "11",
            "10T00:00:00",
            &json!({"item_id": "c", "request_id": "r2", "position": 3})
        ),
        interaction(
            "12",
            "09T23:59:59.999999",
            &json!({"item_id": "c", "surface": "product", "request_id": "r2"})
        ),
    ]);
    assert_eq!(service.interactions(&clicks).await.settled().0, 12);

    let expected = [
        ("2026-03-10", "home", [10, 5, 1, 4, 1, 1, 0]),
        ("2026-03-10", "product", [1, 1, 0, 0, 0, 0, 0]),
        ("2026-03-09", "product", [1, 1, 0, 0, 0, 0, 0]),
        ("2026-03-10", "late", [1, 1, 0, 0, 0, 0, 1]),
    ];
    let both = report(database, &["--from", "2026-03-09", "--to", "2026-03-10"]);
    for (day, surface, figures) in expected {
        assert_eq!(counts(&both, day, surface), figures, "{day} {surface}");
        // A day says the same alone.
        assert_eq!(
            counts(&report(database, &["--day", day]), day, surface),
            figures
        );
    }
    assert_eq!(both.as_array().unwrap().len(), 4);
    assert_eq!(both[1]["share"], 0.5, "{both}");
    // The events are old, and were all received just now.
    assert_eq!(both[1]["late"], 10, "{both}");
    let day = ["--day", "2026-03-10"];
    let patient = report(
        database,
        &[&day[..], &["--late-after", "10000d", "--lookback", "30d"]].concat(),
    );
    assert_eq!(
        counts(&patient, "2026-03-10", "home"),
        [10, 6, 1, 3, 1, 1, 0]
    );
    assert_eq!(patient[0]["late"], 0);
    assert_eq!(
        report(database, &["--day", "2026-03-10", "--tenant", "other"]),
        json!([])
    );

    for (threshold, more, code, named) in [
        (
            "0.9",
            &[] as &[&str],
            1,
            "\"home\" of demo on 2026-03-10: 0.5000",
        ),
        ("0.5", &[], 0, ""),
        ("0.9", &["--interactions-min", "11"], 0, ""),
    ] {
        let arguments = [
            &["report", "join", "--threshold", threshold][..],
            &day[..],
            more,
        ]
        .concat();
        let (ended, out, err) = cli(database, &arguments);
        assert!(
            ended == code && err.contains(named),
            "{arguments:?}: {ended} {out}{err}"
        );
        assert!(!err.contains("product"), "{err}");
        let head = "day\ttenant\tsurface\tinteractions\tjoined\tshare\twithout_token\t";
        assert!(
            out.starts_with(head)
                && out.contains("2026-03-10\tdemo\thome\t10\t5\t0.5000\t1\t4\t1\t1\t10\t0"),
            "{out}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_has_the_same_lines_for_the_days_that_it_covers() {
    let service = Service::start().await;
    let now = jiff::Timestamp::now();
    let at = |event: &mut Value, before: i64| {
        let at = now - jiff::SignedDuration::from_secs(before);
        event["occurred_at"] = at.to_string().into();
    };
    let mut shown = list("r1", "10T08:00:00", "home");
    at(&mut shown, 7200);
    let mut listed = interaction(
        "1",
        "10T08:00:00",
        &json!({"item_id": "a", "request_id": "r1"}),
    );
    at(&mut listed, 3);
    let mut unknown = interaction(
        "2",
        "10T08:00:00",
        &json!({"item_id": "a", "request_id": "r2", "surface": "home"}),
    );
    at(&mut unknown, 3);
    assert_eq!(service.exposures(&shown).await.settled().0, 1);
    assert_eq!(
        service
            .interactions(&json!([listed, unknown]))
            .await
            .settled()
            .0,
        2
    );
    let client = service.database.connect().await;
    let line: String = one(
        &client,
        &format!(
            "SELECT concat_ws(' ', tenant, surface, interactions, joined, share, token_unknown, late)
               FROM ingest_join_quality WHERE day = '{}'",
            &(now - jiff::SignedDuration::from_secs(3)).to_string()[..10]
        ),
    )
    .await;
    assert_eq!(line, "demo home 2 1 0.5000 1 0");
    let partitions = "SELECT count(*) FROM ingest_join_quality WHERE day < (now() AT TIME ZONE 'UTC')::date - 30";
    assert_eq!(one::<i64>(&client, partitions).await, 0);
}
