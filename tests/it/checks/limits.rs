//! What the operating system allows.

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
            .contains("128 HTTP connections"),
        "{finding}"
    );
    let metrics = client.get("/metrics").await.text;
    assert!(
        metrics.contains("recsys_ingest_connections_max 128"),
        "{metrics}"
    );

    let mut ours = RawConnection::open(address).await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    // Each body of a megabyte and more begins another segment.
    for n in 0..20 {
        let mut event = click(&format!("event {n}"));
        event["meta"] = serde_json::json!({"pad": "x".repeat(200_000)});
        let body = serde_json::to_vec(&vec![event; 6]).unwrap();
        let reply = ours.post("/v1/interactions", &[], &body).await;
        assert_eq!(reply.status, 200, "{}\n{}", reply.text, process.log());
    }
    drop(strangers);
    eventually("room for another connection", async || {
        client.get("/healthz").await.status == 200
    })
    .await;
}
