//! Promise: a log that cannot be written never stops the service or a request.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::Stdio;

use crate::harness::{Client, Cluster, Database, Process, Settings, click, eventually};

const PATH: &str = "/v1/interactions";

/// Runs `serve` on a port that is chosen beforehand: the test cannot read it from the log.
async fn serve(settings: &Settings, stderr: Stdio) -> (Process, Client) {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let settings = settings
        .clone()
        .with("--listen", address)
        .with("--log-level", "debug");
    let process = Process::logging_to(stderr, settings.arguments());
    eventually("the service to listen", async || {
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
    let client = Client::new(address);
    eventually("the service to be ready", async || {
        client.get("/readyz").await.status == 200
    })
    .await;
    (process, client)
}

/// Requests, an outage with its warnings, and a stop work as with a log.
async fn lives_without_a_log(stderr: Stdio) {
    let mut cluster = Cluster::start(&[]);
    let database = Database::on(&cluster).await;
    let settings = Settings::new(&database);
    let (mut process, client) = serve(&settings, stderr).await;
    for n in 0..20 {
        let reply = client.post(PATH, &click(&format!("{n}"))).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    cluster.crash();
    let reply = client.query("ack=durable").post(PATH, &click("away")).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    eventually("the outage to be noticed", async || {
        client.get("/readyz").await.json["status"] == "degraded"
    })
    .await;
    cluster.restart();
    eventually("the outage to be over", async || {
        client.get("/readyz").await.json["status"] == "ready"
    })
    .await;
    let status = process.stop();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(database.count("interaction_events").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_stops_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    lives_without_a_log(full.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_is_gone_stops_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    lives_without_a_log(writer.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_does_not_read_stops_nothing_and_what_is_lost_is_counted() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database);
    let (mut process, client) = serve(&settings, writer.into()).await;
    // The log repeats the request id, so the pipe fills up quickly.
    let client = client.header("x-request-id", &"x".repeat(120));
    let lost = async || {
        let text = client.get("/metrics").await.text;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("recsys_ingest_log_lost_lines "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut rounds = 0;
    while lost().await == 0 {
        for _ in 0..500 {
            assert_eq!(client.get("/healthz").await.status, 200);
        }
        rounds += 1;
        assert!(rounds < 100, "nothing was lost");
    }
    let reply = client.post(PATH, &click("a")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // Once the pipe is read again, the log continues and says how many lines are missing.
    let reading = std::thread::spawn(move || {
        let mut log = Vec::new();
        reader.read_to_end(&mut log).unwrap();
        String::from_utf8(log).unwrap()
    });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let status = process.stop();
    assert_eq!(status.code(), Some(0), "{status}");
    let log = reading.join().unwrap();
    assert!(log.contains("lines of the log were lost"));
    assert!(log.contains("\"stopped\""), "the last line is there");
    for line in log.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(json["message"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_reader_that_does_not_read() {
    let (reader, writer) = std::io::pipe().unwrap();
    let database = Database::with_tenants().await;
    let (mut process, client) = serve(&Settings::new(&database), writer.into()).await;
    let client = client.header("x-request-id", &"x".repeat(120));
    // More than a pipe holds.
    for n in 0..1000 {
        let reply = client.get("/healthz").await;
        assert_eq!(reply.status, 200, "{n}");
    }
    let status = process.stop();
    assert_eq!(status.code(), Some(0), "{status}");
    drop(reader);
}
