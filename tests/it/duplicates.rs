//! Promise: an event is stored once, however often it is posted and to whichever instance.

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{Database, Service, click, one, shown};

/// A body of each format: its endpoint, and one element for each event.
fn bodies() -> Vec<(&'static str, Value)> {
    let at = "2026-05-24T10:00:00.5Z";
    let service = json!({"schema_version": "v1", "timestamp": at, "request_id": "r1",
                         "surface": "home", "items": [{"item_id": "a", "rank": 1}]});
    let eval = json!({"request_id": "r1", "user_id": "u", "ts": at, "context": {"surface": "home"},
                      "items": [{"item_id": "a", "rank": 1}]});
    let line = |item: &str, request: Option<&str>| {
        json!({"v": 1, "ts": at, "tenant": "demo", "surface": "home", "session_id": "s",
               "item_id": item, "request_id": request})
    };
    let outcome = json!({"request_id": "r1", "user_id": "u", "item_id": "a",
                         "event_type": "click", "ts": at});
    vec![
        ("/v1/exposures", json!([shown("a"), shown("b")])),
        ("/v1/exposures", json!([service])),
        ("/v1/exposures", json!([eval])),
        (
            "/v1/exposures",
            json!([
                line("a", Some("r1")),
                line("b", Some("r1")),
                line("a", None),
                line("b", None)
            ]),
        ),
        ("/v1/interactions", json!([click("a"), click("b")])),
        (
            "/v1/interactions",
            // A version 7 id carries the time.
            json!([{"event_id": "019cd6c2-8c7b-7000-8000-000000000001", "event_type": "view",
                    "item_id": "a"}]),
        ),
        ("/v1/interactions", json!([outcome])),
    ]
}

#[tokio::test]
async fn any_body_posted_again_is_all_duplicates() {
    let service = Service::start().await;
    for (path, body) in bodies() {
        let events = body.as_array().unwrap().len() as u64;
        let reply = service.client().post(path, &body).await;
        assert_eq!(reply.settled(), (events, 0, 0, 0), "{body}");
        for _ in 0..2 {
            let reply = service.client().post(path, &body).await;
            assert_eq!(reply.settled(), (0, events, 0, 0), "{body}");
        }
    }
    assert_eq!(service.database.count("exposure_events").await, 6);
    assert_eq!(service.database.count("interaction_events").await, 4);
    for (table, stored, duplicate) in [
        // The counter counts rows; the lines of one list become one row.
        ("exposure_events", 6.0, 12.0),
        ("interaction_events", 4.0, 8.0),
    ] {
        for (outcome, expected) in [("stored", stored), ("duplicate", duplicate)] {
            let sample =
                format!("recsys_ingest_events_total{{table=\"{table}\",outcome=\"{outcome}\"}}");
            assert_eq!(service.metric(&sample).await, expected, "{sample}");
        }
    }
}

#[tokio::test]
async fn an_event_twice_in_one_body_is_stored_once() {
    let service = Service::start().await;
    let body = json!([click("a"), click("b"), click("a"), click("a")]);
    assert_eq!(service.interactions(&body).await.settled(), (2, 2, 0, 0));
    // A UUID in two spellings.
    let mut upper = click("0190163D-8694-439B-AEA5-966C26F8AD91");
    upper["item_id"] = json!("second");
    let body = json!([click("0190163d-8694-439b-aea5-966c26f8ad91"), upper]);
    assert_eq!(service.interactions(&body).await.settled(), (1, 1, 0, 0));
    let first: String = crate::harness::one(
        &service.database.connect().await,
        "SELECT item_id FROM interaction_events
          WHERE event_id = '0190163d-8694-439b-aea5-966c26f8ad91'",
    )
    .await;
    assert_eq!(first, "a", "what came first is kept");
}

#[tokio::test]
async fn new_events_among_duplicates_are_stored() {
    let service = Service::start().await;
    let old: Vec<_> = (0..50).map(|n| click(&format!("old {n}"))).collect();
    assert_eq!(service.interactions(&json!(old)).await.settled().0, 50);
    let mixed: Vec<_> = (0..50)
        .flat_map(|n| [click(&format!("new {n}")), click(&format!("old {n}"))])
        .collect();
    let reply = service.interactions(&json!(mixed)).await;
    assert_eq!(reply.settled(), (50, 50, 0, 0));
    assert_eq!(service.database.count("interaction_events").await, 100);
}

#[tokio::test]
async fn the_same_id_in_another_tenant_table_or_time_is_another_event() {
    let service = Service::start().await;
    let mut later = click("a");
    later["occurred_at"] = json!("2026-03-10T08:00:00.000001Z");
    assert_eq!(service.interactions(&click("a")).await.settled().0, 1);
    assert_eq!(service.interactions(&later).await.settled().0, 1);
    assert_eq!(service.exposures(&shown("a")).await.settled().0, 1);
    let other = service.client().role("other", Role::Ingest);
    let reply = other.post("/v1/interactions", &click("a")).await;
    assert_eq!(reply.settled().0, 1);
    // The same instant in another time zone.
    let mut zoned = click("a");
    zoned["occurred_at"] = json!("2026-03-10T10:30:00.0000009+02:30");
    assert_eq!(service.interactions(&zoned).await.settled(), (0, 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_race_through_two_instances_store_each_event_once() {
    let database = Database::with_tenants().await;
    let instances = [
        Service::on(&database, |s| s).await,
        Service::on(&database, |s| s).await,
    ];
    const EVENTS: usize = 600;
    let mut posts = tokio::task::JoinSet::new();
    for n in 0..8 {
        // Each client posts all events, in another order and in chunks of another size.
        let mut events: Vec<_> = (0..EVENTS).map(|e| click(&format!("e {e}"))).collect();
        events.rotate_left(n * 70);
        if n % 2 == 1 {
            events.reverse();
        }
        let client = instances[n % 2].client().clone();
        posts.spawn(async move {
            let (mut committed, mut duplicates) = (0, 0);
            for portion in events.chunks(40 + n) {
                let reply = client.post("/v1/interactions", &json!(portion)).await;
                let settled = reply.settled();
                committed += settled.0;
                duplicates += settled.1;
                assert_eq!((settled.2, settled.3), (0, 0), "{}", reply.text);
            }
            (committed, duplicates)
        });
    }
    let (mut committed, mut duplicates) = (0, 0);
    for (c, d) in posts.join_all().await {
        committed += c;
        duplicates += d;
    }
    let events = EVENTS as u64;
    assert_eq!((committed, duplicates), (events, events * 7));
    assert_eq!(database.count("interaction_events").await, EVENTS as i64);
    for instance in instances {
        instance.stop().await.unwrap();
    }
}

/// Rows of four days, whose ids and times follow from a number.
const MANY: &str = "
    INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id, meta)
    SELECT '00000000-0000-4000-8000-000000000001',
           timestamptz '2026-03-08 00:00:00+00' + (n % 4) * interval '1 day' + n * interval '1 ms',
           ('019cd6c2-8c7b-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now(), 'view', 'item ' || n % 700,
           jsonb_build_object('n', n)
      FROM generate_series(0, 99999) AS n";

/// Scans of whole partitions, and look-ups in their indexes: hot ones have only that of the key.
const SCANS: &str = "
    SELECT (SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables
             WHERE relname LIKE 'interaction\\_events\\_2026%'),
           (SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes
             WHERE relname LIKE 'interaction\\_events\\_2026%')";

/// The planner knows neither how many keys a batch has nor how far a partition has grown since.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_for_duplicates_is_one_look_up_a_key_however_large_the_table() {
    const EVENTS: i64 = 2_000;
    let service = Service::with(|settings| settings.with("--writers", "1")).await;
    let database = &service.database;
    // The partitions are small when the lane's statements are planned for the first time.
    let event = |n: i64| {
        let at = jiff::Timestamp::from_second(1_772_928_000 + (n % 4) * 86_400).unwrap()
            + jiff::SignedDuration::from_millis(n);
        json!({"event_id": format!("019cd6c2-8c7b-7000-8000-{n:012x}"), "occurred_at": at.to_string(),
               "event_type": "view", "item_id": "a"})
    };
    let body = |first: i64| json!((first..first + EVENTS).map(event).collect::<Vec<_>>());
    let days = json!((200_000..200_004).map(event).collect::<Vec<_>>());
    for expected in [(4, 0, 0, 0), (0, 4, 0, 0), (0, 4, 0, 0)] {
        assert_eq!(service.interactions(&days).await.settled(), expected);
    }
    database.execute(MANY).await;
    let client = database.connect().await;
    let scans = async || {
        let row = client.query_one(SCANS, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let mut keys = 0;
    let mut before = scans().await;
    for round in 0..8 {
        if round == 4 {
            database.execute("ANALYZE interaction_events").await;
            // Its own scans are not counted as such, but make sure.
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            before.0 = scans().await.0;
        }
        let reply = service.interactions(&body(round * EVENTS)).await;
        assert_eq!(reply.settled(), (0, u64::try_from(EVENTS).unwrap(), 0, 0));
        keys += EVENTS;
    }
    // Counters are told within a second or so.
    crate::harness::eventually("the look-ups to be counted", async || {
        scans().await.1 - before.1 >= keys
    })
    .await;
    let (whole, looked_up) = scans().await;
    assert_eq!(whole - before.0, 0, "a partition was scanned");
    assert!(
        looked_up - before.1 < 2 * keys,
        "{} look-ups for {keys} keys",
        looked_up - before.1
    );
}

/// Settings that only the search is to have would change the plans of what the table's triggers ask.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_run_with_the_settings_of_the_session_also_after_a_search() {
    let service = Service::start().await;
    let database = &service.database;
    database
        .execute(
            "CREATE TABLE seen (hashjoin text, mergejoin text, seqscan text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen VALUES (current_setting('enable_hashjoin'),
                     current_setting('enable_mergejoin'), current_setting('enable_seqscan'));
                 RETURN NEW;
             END $$;
             CREATE TRIGGER see BEFORE INSERT ON interaction_events
                 FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .await;
    let reply = service.interactions(&json!([click("a")])).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
    // The first one finds the duplicate, the second one asks before it copies.
    for expected in [(1, 1, 0, 0), (1, 2, 0, 0)] {
        let new = format!("new {}", expected.1);
        let body: Vec<Value> = ["a", &new, "new 1"].map(click).into();
        let body = &body[..usize::try_from(expected.0 + expected.1).unwrap()];
        let reply = service.interactions(&json!(body)).await;
        assert_eq!(reply.settled(), expected, "{}", reply.text);
    }
    let others = "SELECT count(*) FROM seen WHERE NOT (hashjoin = 'on' AND mergejoin = 'on' AND seqscan = 'on')";
    assert_eq!(one::<i64>(&database.connect().await, others).await, 0);
    assert!(database.count("seen").await >= 3);
}
