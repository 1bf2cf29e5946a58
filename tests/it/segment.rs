//! Promise: the libraries of Segment and RudderStack work as they are: their routes, keys, forms and
//! answers. What their messages become is what the table in docs/segment.md says.

use std::io::Write as _;

use axum::http::Method;
use flate2::Compression;
use flate2::write::GzEncoder;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::cors;
use crate::harness::{
    Client, DEMO, Database, Process, Rig, Service, Settings, click, eventually, key, one, texts,
    uuid_of,
};

const AT: &str = "2026-03-10T08:00:00Z";

const ROUTES: [(&str, &str); 15] = [
    ("batch", "batch"),
    ("import", "batch"),
    ("b", "batch"),
    ("track", "track"),
    ("t", "track"),
    ("identify", "other"),
    ("page", "other"),
    ("screen", "other"),
    ("group", "other"),
    ("alias", "other"),
    ("i", "other"),
    ("p", "other"),
    ("s", "other"),
    ("g", "other"),
    ("a", "other"),
];

/// A product that was clicked.
fn clicked(id: &str) -> Value {
    json!({"type": "track", "event": "Product Clicked", "messageId": id, "timestamp": AT, "userId": "ada",
           "properties": {"product_id": "lamp", "position": 2, "request_id": "r1", "surface": "home"}})
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn every_route_takes_every_key_whose_role_may_post() {
    let service = Service::start().await;
    let plain = service
        .client()
        .without("x-api-key")
        .without("content-type");
    let mut stored = 0;
    for (n, (route, kind)) in ROUTES.into_iter().enumerate() {
        let path = format!("/v1/{route}");
        for role in Role::ALL {
            for way in ["basic", "header", "query", "body"] {
                let secret = key("demo", role);
                let id = format!("{n}-{}-{way}", role.name());
                let mut body = match kind {
                    "batch" => json!({"batch": [clicked(&id), {"type": "page", "messageId": "p"}]}),
                    _ => clicked(&id),
                };
                let sender = match way {
                    "basic" => {
                        let user = base64(&format!("{secret}:"));
                        plain.header("authorization", &format!("Basic {user}"))
                    }
                    "header" => plain.header("x-api-key", &secret),
                    "query" => plain.query(&format!("key={secret}")),
                    _ => {
                        body["writeKey"] = secret.clone().into();
                        plain.clone()
                    }
                };
                let sender = match role {
                    Role::Service => sender.header("x-org-id", "demo"),
                    _ => sender,
                };
                let reply = sender.post(&path, &body).await;
                let (status, code) = match (role, way) {
                    (Role::Service, "body") => (403, "role_not_allowed"),
                    (Role::Ingest | Role::Service | Role::Publish, _) => (202, ""),
                    _ => (403, "role_not_allowed"),
                };
                let what = format!("{path} {role:?} {way}: {}", reply.text);
                assert_eq!(reply.problem(), (status, code), "{what}");
                if status != 202 {
                    continue;
                }
                let (accepted, others) = match kind {
                    "batch" => (1, 1),
                    "track" => (1, 0),
                    _ => (0, 1),
                };
                stored += accepted;
                assert_eq!(reply.json["success"], true, "{what}");
                assert_eq!(reply.json["accepted"], accepted, "{what}");
                assert_eq!(reply.json["not_collected"], others, "{what}");
                assert_eq!(reply.header("x-ingest-ack"), "committed", "{what}");
            }
        }
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let reply = plain.send(method, &path, Vec::new()).await;
            assert_eq!(reply.problem(), (405, "method_not_allowed"), "{path}");
            assert_eq!(reply.header("allow"), "POST, OPTIONS");
        }
    }
    assert_eq!(service.database.count("interaction_events").await, stored);
    let sample = "recsys_ingest_not_collected_messages_total{kind=\"page\"}";
    assert!(service.metric(sample).await > 0.0);
    for (sender, code) in [
        (plain.clone(), "missing_api_key"),
        (plain.header("x-api-key", "wrong"), "invalid_api_key"),
    ] {
        // A key in the head that is not good is not made up for by one in the body.
        let mut body = clicked("none");
        if code == "invalid_api_key" {
            body["writeKey"] = key("demo", Role::Ingest).into();
        }
        let reply = sender.post("/v1/track", &body).await;
        assert_eq!(reply.problem(), (401, code), "{}", reply.text);
    }
    let mut body = clicked("none");
    body["writeKey"] = "wrong".into();
    let reply = plain.post("/v1/track", &body).await;
    assert_eq!(reply.problem(), (401, "invalid_api_key"));
    // The service key names its tenant; no other key may name another one.
    for (role, status) in [(Role::Service, 202), (Role::Ingest, 403)] {
        let sender = plain
            .header("x-api-key", &key("demo", role))
            .header("x-org-id", "other");
        let reply = sender.post("/v1/track", &clicked("for other")).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
    // Messages have no place for a tenant, and that of the key would be a guess.
    let sender = plain.header("x-api-key", &key("demo", Role::Service));
    let batch = json!({"batch": [clicked("for nobody"), {"type": "page"}]});
    let reply = sender.post("/v1/batch", &batch).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    assert_eq!(reply.json["accepted"], 0, "{}", reply.text);
    assert_eq!(reply.json["not_collected"], 1, "{}", reply.text);
    let rejected = &reply.json["rejected"][0];
    assert_eq!(rejected["code"], "missing_tenant", "{}", reply.text);
}

#[tokio::test]
async fn the_examples_of_the_description_are_taken() {
    let service = Service::start().await;
    let document = recsys_ingest::http::description();
    let paths = document["paths"].as_object().unwrap();
    let mut taken = 0;
    for (path, methods) in paths {
        if methods["post"]["tags"] != json!(["segment"]) {
            continue;
        }
        let example = "/requestBody/content/application~1json/examples/one/value";
        let example = methods["post"].pointer(example).unwrap();
        let reply = service.client().post(path, example).await;
        assert_eq!(reply.status, 202, "{path}: {}", reply.text);
        assert_eq!(reply.json["rejected"], json!([]), "{path}");
        taken += 1;
    }
    assert_eq!(taken, 8);
}

#[tokio::test]
async fn messages_become_the_rows_that_the_table_says() {
    let service = Service::start().await;
    let track = |id: &str, event: &str, properties: Value| {
        json!({"type": "track", "messageId": id, "timestamp": AT, "event": event, "properties": properties,
               "userId": "user", "context": {"ip": "192.0.2.77", "userAgent": "Firefox", "sessionId": 17,
               "traits": {"email": "ada@shop.example"}}})
    };
    let products = json!([{"product_id": "a", "price": "10.25", "quantity": 2, "name": "A thing"},
                          {"product_id": "b", "price": 10}]);
    let body = json!({"sentAt": AT, "batch": [
        track("1", "Product Viewed", json!({"product_id": "a", "request_id": "req-1", "surface": "home"})),
        track("2", "Product Clicked", json!({"product_id": "a", "position": 3, "list_id": "home"})),
        track("3", "Product Added", json!({"sku": 12, "category": "Games", "value": 7.5})),
        track("4", "Order Completed", json!({"order_id": "o", "revenue": 30.5, "currency": "EUR", "products": products})),
        track("5", "Product List Viewed", json!({"recommendation_id": "req-1", "surface": "home",
              "products": [{"product_id": "a", "position": 1}, {"product_id": "b", "position": 2, "score": 0.5}]})),
        track("6", "Cart Viewed", json!({})),
        {"type": "identify", "userId": "user", "traits": {"email": "ada@shop.example"}},
        track("7", "Product Clicked", json!({})),
        track("8", "Order Completed", json!({"products": [{"product_id": "a"}, {"product_id": "b", "price": "cheap"}]})),
        track("9", "Product Viewed", json!({"product_id": "a", "surface": "a/b"})),
        7,
    ]});
    let client = service.client();
    let reply = client.post("/v1/batch", &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    for (name, expected) in [
        ("accepted", 5),
        ("committed", 5),
        ("duplicates", 0),
        ("not_collected", 2),
    ] {
        assert_eq!(reply.json[name], expected, "{name}: {}", reply.text);
    }
    let rejected: Vec<_> = reply.json["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!([one["index"], one["event_id"], one["code"], one["field"]]))
        .collect();
    assert_eq!(
        json!(rejected),
        json!([
            [7, "7", "missing_field", "properties.product_id"],
            [8, "8", "invalid_type", "properties.products[1].price"],
            [9, "9", "invalid_value", "properties.surface"],
            [10, null, "not_an_object", null],
        ])
    );
    let database = service.database.connect().await;
    let rows = texts(
        &database,
        "SELECT concat_ws(' ', event_type, item_id, coalesce(meta ->> 'request_id', '-'), coalesce(surface, '-'),
                          coalesce(position::text, '-'), coalesce(trim_scale(value)::text, '-'))
           FROM interaction_events ORDER BY 1",
    )
    .await;
    assert_eq!(
        rows,
        [
            "add_to_cart 12 3 Games - 7.5",
            "click a 2 home 3 -",
            "purchase a 4 - - 20.5",
            "purchase b 4 - - 10",
            "view a req-1 home - -",
        ]
    );
    let hashed = "SELECT count(*) FROM interaction_events WHERE encode(user_key, 'hex') = \
                  '48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782' AND length(session_id) = 64";
    assert_eq!(one::<i64>(&database, hashed).await, 5);
    let list: String = one(
        &database,
        "SELECT concat_ws(' ', surface, meta ->> 'request_id', response ->> 'items') FROM exposure_events",
    )
    .await;
    assert_eq!(
        list,
        r#"home req-1 [{"rank": 1, "item_id": "a"}, {"rank": 2, "score": 0.5, "item_id": "b"}]"#
    );
    let ids = format!(
        "SELECT event_id::text FROM interaction_events WHERE event_id = '{}'",
        uuid_of(DEMO, "1")
    );
    assert_eq!(texts(&database, &ids).await.len(), 1);
    // What the table does not list is not kept.
    let all = "SELECT (SELECT json_agg(e) FROM exposure_events e)::text || (SELECT json_agg(i) FROM interaction_events i)::text";
    let all: String = one(&database, all).await;
    for secret in ["192.0.2.77", "Firefox", "shop.example", "A thing"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    // Sent again, all of it is known.
    let again = client.post("/v1/import", &body).await;
    assert_eq!(
        (&again.json["committed"], &again.json["duplicates"]),
        (&json!(0), &json!(5))
    );

    // A page posts no exposures, and a tenant's settings map further names.
    let settings = json!({"event_names": {"Cart Viewed": "view"}});
    let sql = format!(
        "INSERT INTO ingest_tenant_settings (tenant_id, settings) VALUES ('{DEMO}', '{settings}')"
    );
    service.database.execute(&sql).await;
    let fresh = Service::on(&service.database, |settings| settings).await;
    let page = fresh.client().role("demo", Role::Publish);
    let body = json!({"batch": [
        track("10", "Cart Viewed", json!({"product_id": "a"})),
        track("11", "Product List Viewed", json!({"products": [{"product_id": "a", "position": 1, "price": 9}, {"product_id": "b"}]})),
    ]});
    let reply = page.post("/v1/b", &body).await;
    assert_eq!(reply.json["accepted"], 2, "{}", reply.text);
    let rows = texts(
        &database,
        "SELECT concat_ws(' ', event_type, item_id, position, value, meta ->> 'source') FROM interaction_events
          WHERE meta ->> 'source' = 'publish' ORDER BY 1",
    )
    .await;
    assert_eq!(
        rows,
        [
            "impression a 1 publish", "impression b publish", "view a publish"
        ]
    );
    assert_eq!(fresh.database.count("exposure_events").await, 1);
}

#[tokio::test]
async fn what_was_done_to_messages_is_told() {
    let service = Service::start().await;
    let order = |id: &str, time: Value, price: Value| {
        json!({"type": "track", "event": "Order Completed", "messageId": id, "timestamp": time,
               "properties": {"product_id": "a", "price": price}})
    };
    let exact = "2026-03-10T08:00:00.1234567Z";
    let list = json!({"type": "track", "event": "Product List Viewed", "messageId": "l", "timestamp": exact,
                      "properties": {"surface": "home", "products": [{"product_id": "a"}]}});
    let value = json!({"type": "track", "event": "Product Added", "messageId": "v", "timestamp": AT,
                       "properties": {"product_id": "a", "value": "1.00000049"}});
    let body = json!({"batch": [
        order("1", json!(exact), json!(1)),
        order("2", json!(AT), json!(0.0000004)),
        order("3", json!(null), json!(1)),
        list, value,
    ]});
    let reply = service.client().post("/v1/batch", &body).await;
    assert_eq!(reply.json["committed"], 5, "{}", reply.text);
    let mut told: Vec<_> = reply.json["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {} {}", one["code"], one["field"], one["count"]).replace('"', ""))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "arrival_time_used timestamp 1",
            "time_truncated timestamp 2",
            "value_rounded properties.products.value 1",
            "value_rounded properties.value 1",
        ]
    );
    let client = service.client().query("acks=all");
    let reply = client.post("/v1/batch", &body).await;
    assert_eq!(reply.problem(), (400, "invalid_query"));
    assert!(
        reply.text.contains("there are ack, key\""),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn an_id_that_the_client_did_not_send_is_not_told() {
    let service = Service::start().await;
    let click = json!({"type": "track", "event": "Product Clicked", "timestamp": AT,
                       "properties": {"product_id": "lamp"}});
    for (id, told) in [
        (json!(null), json!(null)),
        (json!(" "), json!(null)),
        (json!("m-1"), json!("m-1")),
        (json!(7), json!("7")),
    ] {
        // Without a surface. As the batch is for both tables, messages without an id get one.
        let list = json!({"type": "track", "event": "Product List Viewed", "messageId": id,
                          "timestamp": AT,
                          "properties": {"request_id": "r1", "products": [{"product_id": "a"}]}});
        let batch = json!({"batch": [click, list]});
        let reply = service.client().post("/v1/batch", &batch).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(reply.json["accepted"], 1, "{}", reply.text);
        let rejected = &reply.json["rejected"][0];
        assert_eq!(rejected["index"], 1, "{}", reply.text);
        assert_eq!(rejected["field"], "properties.surface", "{}", reply.text);
        assert_eq!(rejected["event_id"], told, "{}", reply.text);
    }
}

#[tokio::test]
async fn bodies_are_taken_in_the_forms_that_libraries_send() {
    let service = Service::with(|settings| settings.with("--segment-prefix", "segment/")).await;
    let client = service.client();
    let batch = |id: &str| json!({"batch": [clicked(id)]}).to_string();
    let form = "application/x-www-form-urlencoded";
    for (n, (path, kind, encoding)) in [
        ("/v1/batch", form, Some("gzip")),
        ("/v1/batch", "text/plain;charset=UTF-8", None),
        ("/v1/batch", "application/json", Some("gzip")),
        ("/v1/batch", "multipart/form-data", None),
        ("/segment/v1/batch", "application/json", None),
        ("//segment//v1/b/", "nonsense", None),
        ("/v1/batch/", "", None),
    ]
    .into_iter()
    .enumerate()
    {
        let body = batch(&format!("form {n}"));
        let mut sender = client.header("content-type", kind);
        let mut bytes = body.clone().into_bytes();
        if let Some(encoding) = encoding {
            sender = sender.header("content-encoding", encoding);
            bytes = gzip(&body);
        }
        let reply = sender.post_bytes(path, bytes).await;
        assert_eq!(
            reply.status, 202,
            "{path} {kind} {encoding:?}: {}",
            reply.text
        );
        assert_eq!(reply.json["accepted"], 1, "{}", reply.text);
    }
    for (path, body, status, code) in [
        ("/v1/batch", b"{".to_vec(), 400, "malformed_body"),
        ("/v1/batch", b"[]".to_vec(), 400, "malformed_body"),
        ("/v1/batch", b"{}".to_vec(), 400, "no_events"),
        ("/v1/batch", Vec::new(), 400, "no_events"),
        ("/v1/batch", gzip("{}"), 400, "invalid_compression"),
        (
            "/v1/batch?format=native",
            b"{}".to_vec(),
            400,
            "invalid_query",
        ),
        ("/v1/batch?ack=soon", b"{}".to_vec(), 400, "invalid_ack"),
        ("/segment/v1/interactions", b"{}".to_vec(), 404, "not_found"),
        ("/v1/batch", vec![b' '; 9 << 20], 413, "body_too_large"),
    ] {
        let reply = client.post_bytes(path, body).await;
        assert_eq!(reply.problem(), (status, code), "{path}: {}", reply.text);
    }
    // Nothing wrong with one message concerns the others, or the status.
    let body = json!({"batch": [{"type": "track"}, {"type": "track", "event": "Product Viewed", "timestamp": "noon", "properties": {"product_id": "a"}}]});
    let reply = client.post("/v1/batch", &body).await;
    assert_eq!(
        (reply.status, &reply.json["accepted"]),
        (202, &json!(0)),
        "{}",
        reply.text
    );
    assert_eq!(reply.json["rejected"][1]["field"], "timestamp");
    assert!(service.metric("recsys_ingest_rejections_total{table=\"interaction_events\",reason=\"invalid_timestamp\"}").await > 0.0);
    // Libraries that take nothing else for success are answered with 200.
    for (agent, status) in [
        ("analytics-python/2.1.9", 200),
        ("analytics-node-next/latest", 200),
        ("Mozilla/5.0", 202),
    ] {
        let sender = client.header("user-agent", agent);
        let reply = sender
            .post("/v1/batch", &json!({"batch": [clicked(agent)]}))
            .await;
        assert_eq!(reply.status, status, "{agent}");
    }
    service.memory_is_free().await;
}

#[tokio::test]
async fn a_key_in_the_body_is_for_small_bodies_and_counts_against_the_address() {
    let service = Service::with(|settings| {
        settings.with(
            "--limits-publish-address",
            "events_per_second=1,events_burst=5",
        )
    })
    .await;
    let plain = service.client().without("x-api-key");
    let with_key = |secret: &str, more: &str| {
        json!({"writeKey": secret, "batch": [clicked("a")], "more": more}).to_string()
    };
    let ingest = key("demo", Role::Ingest);
    let large = "x".repeat(600 << 10);
    let reply = plain
        .post_bytes("/v1/batch", with_key(&ingest, &large))
        .await;
    assert_eq!(reply.problem(), (413, "body_too_large"), "{}", reply.text);
    let hint = "with the API key in the head instead of the body it may have 8388608";
    assert!(reply.text.contains(hint), "{}", reply.text);
    let reply = service
        .client()
        .post_bytes("/v1/batch", with_key(&ingest, &large))
        .await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    // Keys that are tried count, until the address has to wait.
    let mut last = None;
    for _ in 0..7 {
        last = Some(plain.post_bytes("/v1/batch", with_key("guess", "")).await);
    }
    let last = last.unwrap();
    assert_eq!(last.problem(), (429, "rate_limited"), "{}", last.text);
    assert!(last.header("retry-after").parse::<u64>().unwrap() > 0);
    let reply = plain.post_bytes("/v1/batch", with_key(&ingest, "")).await;
    assert_eq!(reply.status, 429, "{}", reply.text);
    // A key in the head is under its own limits.
    let reply = service.client().post("/v1/track", &clicked("b")).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_the_answer_is_429_with_the_time_to_wait() {
    let database = Database::with_tenants().await;
    database
        .execute("ALTER TABLE interaction_events RENAME TO events_that_are_elsewhere")
        .await;
    let settings = Settings::new(&database).with("--migrate-on-start", "false");
    let (_process, client) = Process::listen(&settings);
    let client = client.query("ack=durable");
    eventually("the finding", async || {
        let native = client.post("/v1/interactions", &click("a")).await;
        native.problem() == (503, "cannot_store")
    })
    .await;
    let reply = client.post("/v1/track", &clicked("a")).await;
    assert_eq!(reply.problem(), (429, "cannot_store"), "{}", reply.text);
    assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
    // What needs no table is taken.
    let reply = client.post("/v1/identify", &json!({"userId": "ada"})).await;
    assert_eq!(
        (reply.status, &reply.json["not_collected"]),
        (202, &json!(1))
    );
}

#[tokio::test]
async fn pages_post_without_a_preflight_and_of_the_origins_that_are_listed() {
    let database = Database::with_tenants().await;
    let publish = key("demo", Role::Publish);
    let origins = json!({"origins": ["https://shop.example"]});
    cors::set_key(&database, &publish, &origins).await;
    let service = Service::on(&database, |settings| settings).await;
    let page = |origin: &str| -> Client {
        service
            .client()
            .without("x-api-key")
            .header("content-type", "text/plain")
            .header("origin", origin)
    };
    let mut body = clicked("a");
    body["writeKey"] = publish.into();
    for (origin, status) in [("https://shop.example", 202), ("https://evil.example", 403)] {
        let reply = page(origin).post("/v1/t", &body).await;
        assert_eq!(reply.status, status, "{origin}: {}", reply.text);
        let may_read = reply.header("access-control-allow-origin") == origin;
        assert_eq!(may_read, status == 202, "{origin}");
    }
    let reply = page("https://shop.example")
        .header("access-control-request-method", "POST")
        .send(Method::OPTIONS, "/v1/batch", Vec::new())
        .await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    assert_eq!(reply.header("access-control-allow-methods"), "POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_for_both_tables_is_taken_whole_or_not_at_all() {
    // Without ids, so that what is stored of a refused batch would be stored again.
    let batch = |n: usize, clicks: usize| {
        let message = |event: &str, properties: Value| json!({"type": "track", "event": event, "timestamp": AT, "userId": "ada", "properties": properties});
        let request = format!("r{n}");
        let mut messages: Vec<Value> = (0..clicks)
            .map(|at| message("Product Clicked", json!({"product_id": format!("{at}"), "request_id": request, "surface": "home"})))
            .collect();
        messages.push(message(
            "Product List Viewed",
            json!({"request_id": request, "surface": "home", "products": [{"product_id": "a"}]}),
        ));
        json!({"batch": messages})
    };
    let mut rig = Rig::start(|settings| settings.with("--spool-bytes-max", "36MiB")).await;
    let stored = async |rig: &Rig| {
        let exposures = rig.database.count("exposure_events").await;
        (exposures, rig.database.count("interaction_events").await)
    };
    // The same body again is the same events.
    for duplicates in [0, 6] {
        let reply = rig.client.post("/v1/batch", &batch(0, 5)).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(reply.json["duplicates"], duplicates, "{}", reply.text);
    }
    assert_eq!(stored(&rig).await, (1, 5));
    // Where there is room for the list and none for the clicks, the list is refused as well.
    rig.cluster.crash();
    let durable = rig.client.query("ack=durable");
    let (mut taken, mut refused) = (0, 0);
    for n in 1.. {
        let reply = durable.post("/v1/batch", &batch(n, 2_000)).await;
        match reply.status {
            202 => taken += 1,
            _ => {
                assert_eq!(reply.problem(), (429, "spool_full"), "{}", reply.text);
                refused += 1;
            }
        }
        if refused == 20 {
            break;
        }
    }
    rig.cluster.restart();
    rig.settle().await;
    assert_eq!(stored(&rig).await, (1 + taken, 5 + 2_000 * taken));
}
