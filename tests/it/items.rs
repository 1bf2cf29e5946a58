//! Promise: an interaction with several items is one event: one verdict, a row for each item, and
//! values that are exact and counted once.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{DEMO, Service, click, one, rows, rows_as_text, uuid_of};

const AT: &str = "2026-03-10T08:00:00Z";

/// A purchase of these items.
fn purchase(id: &str, items: &Value) -> Value {
    json!({"event_id": id, "occurred_at": AT, "event_type": "purchase", "items": items})
}

/// The id of a row, as any client can work it out.
fn row_id(event: &str, place: usize) -> String {
    let event: Uuid = uuid_of(DEMO, event).parse().unwrap();
    Uuid::new_v5(&event, format!("/{place}").as_bytes()).to_string()
}

async fn sum_of_values(service: &Service) -> String {
    let sql = "SELECT sum(value)::text FROM interaction_events";
    one(&service.database.connect().await, sql).await
}

#[tokio::test]
async fn an_order_is_one_event_with_a_row_for_each_item_and_its_revenue_once() {
    let service = Service::start().await;
    let mut order = purchase(
        "order-1",
        &json!([
            {"item_id": "book", "position": 1, "price": 19.99, "quantity": 3},
            {"item_id": "lamp", "position": 2, "value": 7.5, "price": 10, "quantity": 1},
            {"item_id": "gift"}
        ]),
    );
    order["order"] = json!({"id": "o-1", "value": 71.47, "currency": "EUR"});
    order["request_id"] = json!("r1");
    let reply = service.interactions(&order).await;
    assert_eq!(
        reply.json,
        json!({"ack": "committed", "accepted": 1, "rejected": [], "committed": 1,
               "duplicates": 0, "quarantined": []})
    );
    let mut found = rows(&service.database, "interaction_events").await;
    assert_eq!(found.len(), 3);
    found.sort_by_key(|row| row["item_id"].to_string());
    let order = json!({"id": "o-1", "value": 71.47, "currency": "EUR"});
    for (row, (place, item, position, value, more)) in found.iter().zip([
        (
            0,
            "book",
            json!("1"),
            json!("59.970000"),
            json!({"price": 19.99, "quantity": 3}),
        ),
        (2, "gift", Value::Null, Value::Null, json!({})),
        (
            1,
            "lamp",
            json!("2"),
            json!("7.500000"),
            json!({"price": 10, "quantity": 1}),
        ),
    ]) {
        assert_eq!(row["event_id"], row_id("order-1", place), "{item}");
        assert_eq!(row["item_id"], item);
        assert_eq!(row["position"], position);
        assert_eq!(row["value"], value);
        let mut meta = json!({"order": order, "request_id": "r1"});
        meta.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        assert_eq!(row["meta"], meta);
    }
    assert_eq!(sum_of_values(&service).await, "67.470000");
    // Later stages count rows.
    let stored = "recsys_ingest_events_total{table=\"interaction_events\",outcome=\"accepted\"}";
    assert_eq!(service.metric(stored).await, 3.0);
}

#[tokio::test]
async fn values_are_what_postgres_makes_of_the_same_numbers() {
    let service = Service::start().await;
    let numbers = [
        ("0.1", "3"),
        ("19.99", "7"),
        ("0.0000005", "1"),
        ("0.0000005", "2"),
        ("0.333333333333333333", "3"),
        ("-1.0000005", "1"),
        ("123456.789012345", "0.000001"),
        ("999999999999.999999", "1"),
        ("1e-300", "1e11"),
        ("25e-5", "1e5"),
        ("3.3e3", "2.5E-1"),
        (
            "0.1000000000000000055511151231257827021181583404541015625",
            "10",
        ),
        ("-0", "5"),
    ];
    let items: Vec<String> = (0..)
        .zip(numbers)
        .map(|(at, (price, quantity))| {
            format!(r#"{{"item_id":"{at}","price":{price},"quantity":{quantity}}}"#)
        })
        .collect();
    let body = purchase("numbers", &json!("@")).to_string();
    let body = body.replace("\"@\"", &format!("[{}]", items.join(",")));
    let reply = service.client().post_bytes("/v1/interactions", body).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    let expected: Vec<String> = (0..)
        .zip(numbers)
        .map(|(at, (price, quantity))| {
            format!("('{at}', ('{price}'::numeric * '{quantity}'::numeric)::numeric(18,6))")
        })
        .collect();
    let sql = format!(
        "SELECT e.item_id, e.value, x.value AS expected
           FROM interaction_events e JOIN (VALUES {}) AS x (item_id, value) USING (item_id)",
        expected.join(",")
    );
    let found = rows_as_text(&service.database, &sql).await;
    assert_eq!(found.len(), numbers.len());
    for row in found {
        assert_eq!(row["value"], row["expected"], "{row:?}");
    }
}

#[tokio::test]
async fn a_retry_is_one_duplicate_and_stores_nothing() {
    let service = Service::start().await;
    let list: Vec<_> = (0..50)
        .map(|n| json!({"item_id": n.to_string(), "position": n}))
        .collect();
    // What a rendered list showed is one event.
    let mut shown = purchase("list-1", &json!(list));
    shown["event_type"] = json!("impression");
    for expected in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 1, 0, 0)] {
        assert_eq!(service.interactions(&shown).await.settled(), expected);
        assert_eq!(service.database.count("interaction_events").await, 50);
    }
    // In one body with itself, and with others.
    let body = json!([click("a"), shown, click("b"), shown]);
    assert_eq!(service.interactions(&body).await.settled(), (2, 2, 0, 0));
    // The same event with one more item is stored in part before: its worst row counts.
    let mut longer = list;
    longer.push(json!({"item_id": "new"}));
    shown["items"] = json!(longer);
    assert_eq!(service.interactions(&shown).await.settled(), (0, 1, 0, 0));
    assert_eq!(service.database.count("interaction_events").await, 53);
}

#[tokio::test]
async fn an_event_is_as_good_as_its_worst_row() {
    let service = Service::start().await;
    service
        .database
        .execute(
            "ALTER TABLE interaction_events ADD CHECK (item_id <> 'poison');
             CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF NEW.item_id = 'skipped' THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER skip BEFORE INSERT ON interaction_events
             FOR EACH ROW EXECUTE FUNCTION skip();",
        )
        .await;
    let items = |names: &str| -> Value {
        names
            .split(' ')
            .map(|name| json!({"item_id": name}))
            .collect()
    };
    let known = purchase("known", &items("a b"));
    assert_eq!(service.interactions(&known).await.settled(), (1, 0, 0, 0));
    let body = json!([
        purchase("good", &items("a b c")),
        purchase("bad", &items("a poison b poison")),
        {"event_type": "stare"},
        known,
        purchase("skipped", &items("skipped a")),
        // Stored before in part, and with a bad row now.
        purchase("known", &items("a b poison")),
    ]);
    let reply = service.interactions(&body).await;
    assert_eq!(reply.settled(), (1, 1, 3, 1), "{}", reply.text);
    assert_eq!(reply.json["accepted"], 5);
    let told = reply.json["quarantined"].as_array().unwrap().iter();
    let told: Vec<_> = told
        .map(|one| {
            (
                one["index"].as_u64().unwrap(),
                one["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(1, "23514"), (4, "IN002"), (5, "23514")]);
    // Rows go their own ways: 2 known, 3 good, 2 of the bad one, 1 beside the skipped one.
    assert_eq!(service.database.count("interaction_events").await, 8);
    let sql = "SELECT event_id::text FROM ingest_quarantine";
    let quarantined = rows_as_text(&service.database, sql).await;
    let mut quarantined: Vec<_> = quarantined
        .iter()
        .map(|row| row["event_id"].as_str().unwrap().to_owned())
        .collect();
    quarantined.sort();
    let mut expected = [("bad", 1), ("bad", 3), ("skipped", 0), ("known", 2)]
        .map(|(event, place)| row_id(event, place));
    expected.sort();
    assert_eq!(quarantined, expected);
}

#[tokio::test]
async fn one_bad_item_rejects_its_event_and_no_other() {
    let service = Service::start().await;
    let item = |n: u32| json!({"item_id": n.to_string(), "price": 1});
    let mut items: Vec<_> = (0..5).map(item).collect();
    items[3]["price"] = json!("free");
    let body = json!([click("a"), purchase("bad", &json!(items)), click("b")]);
    let reply = service.interactions(&body).await;
    assert_eq!(reply.settled(), (2, 0, 0, 1), "{}", reply.text);
    assert_eq!(reply.rejection(), ("invalid_type", "items[3].price"));
    assert_eq!(service.database.count("interaction_events").await, 2);
}

#[tokio::test]
async fn the_limit_on_events_counts_rows() {
    let service = Service::with(|s| s.with("--events-max", "5")).await;
    let list = |id: &str, count| purchase(id, &json!(vec![json!({"item_id": "a"}); count]));
    let body = json!([list("a", 2), list("b", 2), list("c", 2)]);
    let reply = service.interactions(&body).await;
    assert_eq!(reply.problem(), (413, "too_many_events"), "{}", reply.text);
    assert_eq!(reply.json["events_that_fit"], 2);
    assert_eq!(service.database.count("interaction_events").await, 0);
    let reply = service
        .interactions(&json!([list("a", 2), list("b", 2), click("c")]))
        .await;
    assert_eq!(reply.settled(), (3, 0, 0, 0), "{}", reply.text);
    let reply = service.interactions(&list("d", 6)).await;
    assert_eq!(reply.problem(), (413, "too_many_events"));
    assert_eq!(reply.json["events_that_fit"], 0);
}

/// More rows than are decoded on the connection's thread.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_rows_in_a_small_body_are_one_record() {
    let service = Service::start().await;
    let list = |n: usize| {
        let id = format!("list {n}");
        let items: Vec<_> = (0..1000)
            .map(|n| json!({"item_id": n.to_string()}))
            .collect();
        purchase(&id, &json!(items))
    };
    let body: Vec<_> = (0..3).map(list).collect();
    let reply = service.interactions(&json!(body)).await;
    assert_eq!(reply.settled(), (3, 0, 0, 0), "{}", reply.text);
    assert_eq!(service.database.count("interaction_events").await, 3000);
    let reply = service.interactions(&json!(body)).await;
    assert_eq!(reply.settled(), (0, 3, 0, 0), "{}", reply.text);
}
