//! Limits of the operating system.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{findings, says};
use crate::harness::{Client, Database, Process, RawConnection, Settings, click, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_take_the_files_that_spool_and_postgres_need() {
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database);
    let process = Process::run_with_files(256, settings.arguments());
    let address = process.listening();
    let client = Client::new(address);
    says(
        &process,
        &client,
        "ready",
        "this process may open 256 files",
    )
    .await;
    let [finding] = &findings(&client, "open_files_few").await[..] else {
        panic!("{}", process.log());
    };
    assert!(
        finding["meaning"]
            .as_str()
            .unwrap()
            .contains("64 HTTP connections"),
        "{finding}"
    );
    let metrics = client.get("/metrics").await.text;
    assert!(
        metrics.contains("recsys_ingest_connections_max 64"),
        "{metrics}"
    );

    // More connections than the service accepts: the others wait in the listen backlog or are
    // refused.
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..300 {
        strangers.spawn(async move {
            let stranger = TcpStream::connect(address).await;
            std::future::pending::<()>().await;
            drop(stranger);
        });
    }
    eventually("strangers", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::read_dir(format!("/proc/{}/fd", process.pid()))
            .unwrap()
            .count()
            > 64
    })
    .await;
    // Each body of more than a megabyte begins another segment.
    for n in 0..20 {
        let mut event = click(&format!("event {n}"));
        event["meta"] = serde_json::json!({"pad": "x".repeat(200_000)});
        let body = serde_json::to_vec(&vec![event; 6]).unwrap();
        // On a new connection: one that is kept waits as the strangers do, and may have to go.
        let mut ours = RawConnection::open(address).await;
        let reply = ours.post("/v1/interactions", &[], &body).await;
        assert_eq!(reply.status, 200, "{}\n{}", reply.text, process.log());
    }
    strangers.shutdown().await;
    eventually("room for another connection", async || {
        client.get("/healthz").await.status == 200
    })
    .await;
}
