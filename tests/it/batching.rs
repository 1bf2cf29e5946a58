//! Promise: a batch is written when it is large enough or old enough.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Service, click, eventually};

const TABLE: &str = "{table=\"interaction_events\"}";

/// Number of batches written, and of rows in them.
async fn batches(service: &Service) -> (f64, f64) {
    (
        service
            .metric(&format!("recsys_ingest_batch_rows_count{TABLE}"))
            .await,
        service
            .metric(&format!("recsys_ingest_batch_rows_sum{TABLE}"))
            .await,
    )
}

/// Posts `count` bodies of `events` events without waiting for their commit.
async fn post(service: &Service, count: usize, events: usize) {
    let client = service.client().query("ack=received");
    for body in 0..count {
        let body: Vec<_> = (0..events).map(|n| click(&format!("{body} {n}"))).collect();
        let reply = client.post("/v1/interactions", &json!(body)).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    }
}

#[tokio::test]
async fn a_batch_is_written_when_it_has_enough_rows() {
    let service = Service::with(|s| {
        s.with("--writers", "1")
            .with("--batch-rows-max", "100")
            .with("--flush-after", "1h")
    })
    .await;
    post(&service, 19, 10).await;
    eventually("the first batch", async || {
        batches(&service).await == (1.0, 100.0)
    })
    .await;
    assert_eq!(service.database.count("interaction_events").await, 100);
    // The other ninety wait for ten more rows, or for the stop.
    assert_eq!(batches(&service).await, (1.0, 100.0));
    let database = service.database.clone();
    service.stop().await.unwrap();
    assert_eq!(database.count("interaction_events").await, 190);
}

#[tokio::test]
async fn a_batch_is_written_when_it_has_enough_bytes() {
    let service = Service::with(|s| {
        s.with("--writers", "1")
            .with("--batch-bytes-max", "10KiB")
            .with("--flush-after", "1h")
            .with("--flush-waited-after", "1h")
    })
    .await;
    let mut large = click("large");
    large["meta"] = json!({"pad": "x".repeat(12 << 10)});
    let started = Instant::now();
    assert_eq!(service.interactions(&large).await.settled().0, 1);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(batches(&service).await, (1.0, 1.0));
}

#[tokio::test]
async fn a_batch_is_written_when_it_is_old_enough() {
    let wait = Duration::from_millis(600);
    let service = Service::with(|s| {
        s.with("--writers", "1")
            .with("--flush-after", "600ms")
            .with("--flush-waited-after", "1h")
    })
    .await;
    let started = Instant::now();
    let (a, b, c) = (click("a"), click("b"), click("c"));
    let (a, b, c) = tokio::join!(
        service.interactions(&a),
        service.interactions(&b),
        service.interactions(&c)
    );
    for reply in [a, b, c] {
        assert_eq!(reply.settled().0, 1);
    }
    assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
    assert!(started.elapsed() < wait * 10, "{:?}", started.elapsed());
    assert_eq!(batches(&service).await, (1.0, 3.0));
}

#[tokio::test]
async fn a_batch_is_written_soon_once_somebody_waits_for_it() {
    let service = Service::with(|s| s.with("--writers", "1").with("--flush-after", "1h")).await;
    post(&service, 3, 10).await;
    assert_eq!(service.database.count("interaction_events").await, 0);
    let started = Instant::now();
    assert_eq!(service.interactions(&click("now")).await.settled().0, 1);
    assert!(started.elapsed() < Duration::from_secs(20));
    // The rows that were waiting are in the same batch.
    assert_eq!(batches(&service).await, (1.0, 31.0));
}
