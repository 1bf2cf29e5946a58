//! Promise: a log line says which request or lane it is about, and which trace.

use serde_json::Value;

use crate::harness::{Client, Database, Process, Settings, click, eventually};

const PATH: &str = "/v1/interactions";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Runs `serve` with a log format and a level, which lets the start through.
async fn serve(database: &Database, format: &str, level: &str) -> (Process, Client, Settings) {
    let settings = Settings::new(database)
        .with("--log-format", format)
        .with("--log-level", level);
    let process = Process::run(settings.arguments());
    let mut address = None;
    eventually("the service to listen", async || {
        let log = process.log();
        let line = log.lines().find(|line| line.contains("listening"));
        address = line.and_then(|line| {
            let from = line.find("127.0.0.1:")?;
            let end = |c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':'));
            line[from..].split(end).next()?.parse().ok()
        });
        address.is_some()
    })
    .await;
    let client = Client::new(address.unwrap());
    eventually("the service to be ready", async || {
        client.get("/readyz").await.status == 200
    })
    .await;
    (process, client, settings)
}

/// The first line of the log that contains all of `words`.
async fn line(process: &Process, words: &[&str]) -> String {
    let mut found = None;
    eventually(&format!("a line with {words:?}"), async || {
        let log = process.log();
        let mut lines = log.lines();
        let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
        found = line.map(str::to_owned);
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Posts a row that Postgres refuses, which its lane logs.
async fn post_a_bad_row(database: &Database, client: &Client) {
    let connection = database.connect().await;
    connection
        .batch_execute("ALTER TABLE interaction_events ADD CHECK (item_id <> 'poison')")
        .await
        .unwrap();
    let mut bad = click("bad");
    bad["item_id"] = "poison".into();
    let reply = client.post(PATH, &bad).await;
    assert_eq!(reply.settled(), (0, 0, 1, 0), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_names_its_request_and_the_callers_trace() {
    let database = Database::with_tenants().await;
    for format in ["json", "pretty"] {
        let (mut process, client, _settings) = serve(&database, format, "debug").await;
        let traced = client
            .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"))
            .header("x-request-id", "the-traced-one");
        assert_eq!(traced.post(PATH, &click(format)).await.status, 200);
        let answered = line(&process, &["answered", "the-traced-one"]).await;
        for words in [TRACE, PARENT, "trace_id", "parent_id", "POST", PATH] {
            assert!(answered.contains(words), "{words}: {answered}");
        }
        // Requests that the router serves, and those that are refused, have the same.
        let routed = traced.header("x-request-id", "a-routed-one");
        assert_eq!(routed.get("/nowhere").await.status, 404);
        let answered = line(&process, &["answered", "a-routed-one"]).await;
        assert!(answered.contains(TRACE), "{answered}");
        // What is not valid is ignored.
        for (n, bad) in [
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        ]
        .iter()
        .enumerate()
        {
            let id = format!("untraced-{n}");
            let untraced = client
                .header("traceparent", bad)
                .header("x-request-id", &id);
            assert_eq!(untraced.post(PATH, &click(&id)).await.status, 200);
            let answered = line(&process, &["answered", &id]).await;
            assert!(!answered.contains("trace_id"), "{answered}");
        }
        if format == "json" {
            let line: Value = serde_json::from_str(&answered).unwrap();
            assert_eq!(line["span"]["name"], "request", "{line}");
            assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
        }
        assert_eq!(process.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lanes_line_names_its_table_and_shard_also_where_only_warnings_are_logged() {
    for (format, level) in [
        ("json", "debug"),
        ("json", "warn,recsys_ingest::service=info"),
        ("pretty", "info"),
    ] {
        let database = Database::with_tenants().await;
        let (mut process, client, _settings) = serve(&database, format, level).await;
        post_a_bad_row(&database, &client).await;
        let line = line(&process, &["rows were set aside"]).await;
        if format == "json" {
            let line: Value = serde_json::from_str(&line).unwrap();
            let span = &line["span"];
            assert_eq!(span["name"], "lane", "{line}");
            assert_eq!(span["table"], "interaction_events", "{line}");
            assert_eq!(span["shard"], 0, "{line}");
        } else {
            for words in ["lane", "table", "interaction_events", "shard"] {
                assert!(line.contains(words), "{words}: {line}");
            }
        }
        assert_eq!(process.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_line_names_the_task() {
    let database = Database::with_tenants().await;
    let (mut process, _client, _settings) = serve(&database, "json", "info").await;
    let ready: Value = serde_json::from_str(&line(&process, &["\"ready\""]).await).unwrap();
    assert_eq!(ready["span"]["task"], "the announcement", "{ready}");
    assert_eq!(process.stop().code(), Some(0));
}
