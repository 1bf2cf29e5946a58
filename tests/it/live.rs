//! Promise: the live page is light and runs nothing but its own files; what it shows is true, and
//! names no one; `tap` prints what becomes of each body.

use std::ffi::OsString;
use std::path::Path;

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{
    Client, Process, RawConnection, Rig, Service, assigned, click, eventually, key, shown,
};

/// Bytes of the page with all its files, as they are sent.
const WIRE_BYTES_MAX: usize = 150 * 1024;

fn looking(client: &Client) -> Client {
    client.role("demo", Role::Operator)
}

/// The member of `all` that has `value` as its member `name`.
fn of<'v>(all: &'v Value, name: &str, value: &str) -> &'v Value {
    let mut found = all.as_array().unwrap().iter();
    let found = found.find(|one| one[name] == value);
    found.unwrap_or_else(|| panic!("no {value} in {all:#}"))
}

#[tokio::test]
async fn the_page_is_light_and_runs_its_own_files_alone() {
    let service = Service::start().await;
    let client = service.client().without("x-api-key");
    let page = client.get("/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    for directive in [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|one| one == directive), "{policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    // The pages beside it keep theirs.
    for (path, other) in [
        ("/problems", "default-src 'none'; frame-ancestors 'none'"),
        ("/metrics", "default-src 'none'; frame-ancestors 'none'"),
    ] {
        assert_eq!(
            client.get(path).await.header("content-security-policy"),
            other
        );
    }
    let files: Vec<&str> = page
        .text
        .split(['"', '\''])
        .filter(|word| word.starts_with("live/"))
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
    let mut paths = vec!["/".to_owned()];
    paths.extend(files.iter().map(|file| format!("/{file}")));
    let mut bytes = 0;
    for path in &paths {
        let reply = client.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        // With the head, as it goes over the wire.
        let mut wire = RawConnection::open(client.address).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        wire.write(request.as_bytes()).await;
        bytes += wire.read_to_end().await.len();
    }
    println!("the page takes {bytes} bytes");
    assert!(bytes <= WIRE_BYTES_MAX, "{bytes} bytes");
    // The licence is in what is served.
    let charts = client.get("/live/uplot.js").await.text;
    assert!(
        charts.starts_with("/*!\nThe MIT License"),
        "{}",
        &charts[..80]
    );
    // Nothing inline, which the policy would forbid.
    let is_inline = |tag: &str| tag.starts_with("script") && !tag.contains("src=");
    for tag in page.text.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        assert!(
            !is_inline(tag) && !tag.contains(" style=") && !tag.contains(" on"),
            "{tag}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_shows_is_true_and_names_no_one() {
    let service = Service::start().await;
    service
        .database
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'no % today', NEW.user_key USING ERRCODE = '23514';
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON interaction_events FOR EACH ROW
                 WHEN (NEW.item_id = 'refused') EXECUTE FUNCTION refuse()",
        )
        .await;
    let client = looking(service.client());
    let first = client.get("/live").await;
    assert_eq!(first.header("cache-control"), "no-store");
    assert_eq!(first.json["bodies"], json!([]), "no one had looked");
    assert_eq!(first.json["service"]["status"], "ready", "{}", first.text);

    let named = |mut event: Value| {
        event["user_id"] = "secret-user".into();
        event["anonymous_id"] = "secret-visitor".into();
        event
    };
    let mut wrong = named(click("secret-event"));
    wrong["event_type"] = "stare".into();
    wrong["secret@field.test"] = 1.into();
    let mut refused = named(click("refused"));
    refused["item_id"] = "refused".into();
    let clicks = json!([named(click("a")), named(click("a")), wrong, refused]);
    assert_eq!(service.interactions(&clicks).await.settled(), (1, 1, 1, 1));
    assert_eq!(service.exposures(&named(shown("a"))).await.status, 200);
    service
        .client()
        .post("/v1/assignments", &assigned("a"))
        .await;
    let strict = service.client().query("strict=true");
    let mut unknown = named(shown("b"));
    unknown["secret@field.test"] = 1.into();
    assert_eq!(strict.post("/v1/exposures", &unknown).await.status, 422);
    let stranger = service.client().header("x-api-key", "secret-key");
    assert_eq!(
        stranger.post("/v1/exposures", &shown("c")).await.status,
        401
    );

    let live = client.get("/live").await.json;
    let clicks = of(&live["tables"], "table", "interaction_events");
    for (name, number) in [
        ("accepted", 3),
        ("rejected", 1),
        ("stored", 1),
        ("duplicates", 1),
        ("quarantined", 1),
    ] {
        assert_eq!(clicks[name], number, "{name}: {clicks:#}");
    }
    assert_eq!(clicks.get("oldest_unstored_seconds"), None, "all is stored");
    let lag = clicks["last_lag_seconds"].as_f64().unwrap();
    assert!((0.0..120.0).contains(&lag), "{lag}");
    let accounts = of(&live["accounts"], "table", "interaction_events");
    assert_eq!(accounts["accepted"], 3, "{accounts}");
    assert_eq!(live["lanes"].as_array().unwrap().len(), 5);
    assert!(
        live["lanes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|lane| lane["health"] == "good")
    );
    let rejected = of(&live["rejections"], "code", "invalid_value");
    assert_eq!(
        (&rejected["count"], &rejected["example"]["field"]),
        (&json!(1), &json!("event_type"))
    );
    assert_eq!(
        of(&live["rejections"], "code", "unknown_field")["example"]["field"],
        "(masked)"
    );

    let bodies = live["bodies"].as_array().unwrap();
    let statuses: Vec<_> = bodies
        .iter()
        .map(|body| body["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 422, 401]);
    let (clicks, problem) = (&bodies[0], &bodies[4]);
    for (name, value) in [
        ("endpoint", json!("/v1/interactions")),
        ("ack", json!("committed")),
        ("accepted", json!(3)),
        ("rejected", json!(1)),
        ("committed", json!(1)),
        ("duplicates", json!(1)),
        ("quarantined", json!(1)),
        (
            "reasons",
            json!([{"code": "invalid_value", "field": "event_type", "count": 1}, {"code": "23514", "count": 1}]),
        ),
    ] {
        assert_eq!(clicks[name], value, "{name}: {clicks:#}");
    }
    assert_eq!(problem["code"], "invalid_api_key");
    let last = problem["number"].as_u64().unwrap();
    for (query, count) in [
        (format!("after={}&only=bodies", last - 2), 2),
        (format!("only=bodies&after={last}"), 0),
    ] {
        let reply = client.get(&format!("/live?{query}")).await;
        assert_eq!(
            reply.json["bodies"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    for query in ["after=x", "only=all", "since=1", "after=-1"] {
        let reply = client.get(&format!("/live?{query}")).await;
        assert_eq!(reply.problem(), (400, "invalid_query"), "{query}");
    }

    // What Postgres says comes with one of the next looks.
    let mut live = Value::Null;
    eventually("the survey", async || {
        live = client.get("/live").await.json;
        let is_there = |list: &Value| list.as_array().is_some_and(|all| !all.is_empty());
        let mut tables = live["partitions"].as_array().into_iter().flatten();
        is_there(&live["quarantine"]) && tables.all(|table| is_there(&table["newest"]))
    })
    .await;
    let quarantined = of(&live["quarantine"], "code", "23514");
    let message = quarantined["message"].as_str().unwrap();
    // The trigger tells the user's key; eight digits of it are left.
    assert!(
        message.starts_with("no \\x") && message.ends_with("… today"),
        "{message}"
    );
    assert_eq!(
        message.chars().count(),
        "no \\x12345678… today".chars().count(),
        "{message}"
    );
    for table in [
        "exposure_events", "interaction_events", "ingest_assignments",
    ] {
        let newest = &of(&live["partitions"], "table", table)["newest"];
        assert!(
            newest
                .as_array()
                .unwrap()
                .iter()
                .any(|part| part["state"] == "hot" && part["bytes"].as_i64().unwrap() > 0),
            "{newest:#}"
        );
    }
    let instance = of(
        &live["instances"],
        "spool",
        live["instance"].as_str().unwrap(),
    );
    assert_eq!(
        (&instance["is_this"], &instance["stored"]),
        (&json!(true), &json!(3)),
        "{instance:#}"
    );
    assert_eq!(
        of(&live["totals"], "table", "interaction_events")["quarantined"],
        1
    );
    let text = live.to_string();
    for secret in [
        "secret-user",
        "secret-visitor",
        "secret-event",
        "secret@field",
        "secret-key",
        "demo",
        &key("demo", Role::Ingest),
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_waits_for_postgres_grows_older_on_the_page_and_in_the_metrics() {
    let mut rig = Rig::start(|settings| settings.with("--default-ack", "durable")).await;
    let client = looking(&rig.client);
    let age = async || {
        let live = client.get("/live").await.json;
        let table = of(&live["tables"], "table", "exposure_events");
        (
            live["postgres"]["state"].clone(),
            table["oldest_unstored_seconds"].as_f64(),
        )
    };
    let metric = async || {
        let metrics = client.get("/metrics").await.text;
        let name = "recsys_ingest_oldest_unstored_seconds{table=\"exposure_events\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.expect(name).parse::<f64>().unwrap()
    };
    assert_eq!((age().await.1, metric().await), (None, 0.0));
    rig.cluster.crash();
    assert_eq!(
        rig.client.post("/v1/exposures", &shown("a")).await.status,
        202
    );
    eventually("the row to be two seconds old", async || {
        let (state, age) = age().await;
        state == "away" && age.is_some_and(|age| age >= 2.0)
    })
    .await;
    assert!(metric().await >= 2.0);
    // A start does not make it younger, once the lane has it at hand.
    let before = metric().await;
    rig.process.kill();
    rig.serve();
    let client = looking(&rig.client);
    rig.cluster.restart();
    eventually("the row to be stored", async || {
        let live = client.get("/live").await.json;
        let table = of(&live["tables"], "table", "exposure_events");
        table["last_lag_seconds"]
            .as_f64()
            .is_some_and(|lag| lag >= before)
    })
    .await;
}

#[tokio::test]
async fn bodies_of_segments_shape_are_told_under_the_path_that_they_were_posted_to() {
    let service = Service::with(|settings| settings.with("--segment-prefix", "/segment")).await;
    let client = looking(service.client());
    client.get("/live").await;
    let track = |id: &str, event: &str, properties: Value| {
        json!({"type": "track", "messageId": id, "userId": "secret-user", "timestamp": "2026-03-10T08:00:00Z",
               "event": event, "properties": properties})
    };
    let list =
        |products: Value| json!({"request_id": "r", "surface": "home", "products": products});
    let mixed = json!({"batch": [
        track("secret-a", "Product Clicked", json!({"product_id": "a"})),
        track("secret-b", "Product Clicked", json!({})),
        track("secret-c", "Product List Viewed", list(json!([{"product_id": "a"}]))),
        track("secret-d", "Product List Viewed", list(json!([{"product_id": "a", "score": "high"}]))),
        track("secret-e", "Cart Viewed", json!({})),
        {"type": "identify", "userId": "secret-user"},
        7,
    ]});
    let sender = service.client();
    let one = track("secret-f", "Product Viewed", json!({"product_id": "a"}));
    let stranger = sender.header("x-api-key", "secret-key");
    for (sender, path, body, status) in [
        (sender, "/v1/batch", &mixed, 202),
        (sender, "/segment/v1/t", &one, 202),
        (
            sender,
            "/v1/identify",
            &json!({"userId": "secret-user"}),
            202,
        ),
        (sender, "/v1/b", &json!({}), 400),
        (&stranger, "/v1/b", &mixed, 401),
    ] {
        let reply = sender.post(path, body).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }
    let live = client.get("/live").await.json;
    let told: Vec<Value> = live["bodies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|body| {
            json!([
                body["endpoint"], body["status"], body["code"], body["ack"], body["accepted"],
                body["rejected"], body["not_collected"], body["committed"]
            ])
        })
        .collect();
    assert_eq!(
        json!(told),
        json!([
            ["/v1/batch", 202, null, "committed", 2, 3, 2, 2],
            ["/v1/t", 202, null, "committed", 1, 0, null, 1],
            ["/v1/identify", 202, null, "committed", 0, 0, 1, null],
            ["/v1/b", 400, "no_events", null, 0, 0, null, null],
            ["/v1/b", 401, "invalid_api_key", null, 0, 0, null, null],
        ]),
        "{live:#}"
    );
    let rejected: Vec<Value> = live["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            json!([
                one["table"], one["code"], one["count"], one["example"]["field"]
            ])
        })
        .collect();
    for expected in [
        json!([
            "interaction_events", "missing_field", 1, "properties.product_id"
        ]),
        json!([
            "exposure_events",
            "invalid_type",
            1,
            "properties.products[0].score"
        ]),
        json!(["interaction_events", "not_an_object", 1, null]),
    ] {
        assert!(rejected.contains(&expected), "{expected}: {rejected:#?}");
    }
    assert!(!live.to_string().contains("secret"), "{live:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tap_prints_what_becomes_of_each_body() {
    let service = Service::start().await;
    let url = format!("http://{}", service.client().address);
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("key");
    std::fs::write(&file, format!("{}\n", key("demo", Role::Viewer))).unwrap();
    let tap = |url: &str, arguments: &[&str]| {
        let all = ["tap", "--url", url].into_iter();
        Process::run(all.chain(arguments.iter().copied()).map(OsString::from))
    };
    let sender = key("demo", Role::Ingest);
    for (url, arguments, said) in [
        (&*url, &["--key", "wrong"][..], "there is no such API key"),
        (&*url, &[], "send an API key"),
        (
            &*url,
            &["--key", &sender],
            "may look here: viewer, operator, admin",
        ),
        ("http://127.0.0.1:1", &[], "cannot connect to 127.0.0.1:1"),
    ] {
        let mut process = tap(url, arguments);
        assert_eq!(process.wait().code(), Some(1), "{arguments:?}");
        assert!(
            process.log().contains(said),
            "{arguments:?}: {}",
            process.log()
        );
    }
    let by_file = Path::to_str(&file).unwrap();
    let mut lines = tap(&url, &["--key-file", by_file]);
    let mut documents = tap(&url, &["--key-file", by_file, "--json"]);
    for process in [&lines, &documents] {
        eventually("the first look", async || {
            process.log().contains("watching")
        })
        .await;
    }
    let body = json!([click("a"), {"event_type": "stare"}]);
    assert_eq!(service.interactions(&body).await.status, 200);
    assert_eq!(service.exposures(&json!({})).await.status, 422);
    let clicked =
        json!({"event": "Product Clicked", "messageId": "m", "properties": {"product_id": "a"}});
    let reply = service.client().post("/v1/track", &clicked).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    for process in [&lines, &documents] {
        eventually("three verdicts", async || {
            process.answer().lines().count() == 3
        })
        .await;
    }
    let text = lines.answer();
    for words in [
        " 202 /v1/track committed accepted=1 committed=1 warning:arrival_time_used\n",
        " 200 /v1/interactions committed accepted=1 rejected=1 committed=1 ",
        " 422 /v1/exposures all_events_rejected accepted=0 rejected=1 missing_field(",
    ] {
        assert!(text.contains(words), "{text}");
    }
    let text = documents.answer();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["status"], &first["rejected"]),
        (&json!(200), &json!(1))
    );
    for process in [&mut lines, &mut documents] {
        assert_eq!(process.stop().code(), Some(143));
    }
}
