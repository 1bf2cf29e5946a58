//! Connections without TLS where TLS was asked for.

use super::{findings, is_ready, says};
use crate::directory::server::Server;
use crate::harness::{Database, Process, Settings, click};

#[tokio::test(flavor = "multi_thread")]
async fn prefer_that_ends_in_clear_text_says_so_and_stays_ready() {
    let Some(server) = Server::with_tls("p521", "").await else {
        return;
    };
    let database = server.database().await;
    let settings = |parameters: &str| {
        let url = server.url("recsys", parameters);
        Settings::new(&Database::by(url))
    };
    drop(database);
    let (process, client) = Process::listen(&settings("sslmode=prefer"));
    says(
        &process,
        &client,
        "ready",
        "connections to PostgreSQL are not encrypted",
    )
    .await;
    let [finding] = &findings(&client, "clear_text").await[..] else {
        panic!("{}", process.log());
    };
    assert_eq!(finding["severity"], "note");
    let log = process.log();
    let warnings = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("are not encrypted"));
    assert_eq!(warnings.count(), 1, "{log}");
    let stored = client.post("/v1/interactions", &click("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0));
    // `sslmode=disable` is a deliberate choice, so it is no finding.
    let (process, client) = Process::listen(&settings("sslmode=disable"));
    is_ready(&process, &client).await;
    assert_eq!(findings(&client, "clear_text").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefer_with_a_server_without_tls_says_so_and_gives_the_true_reason_of_a_failure() {
    let server = Server::plain().await;
    server.database().await;
    let url = server.url("recsys", "sslmode=prefer");
    let (process, client) = Process::listen(&Settings::new(&Database::by(url)));
    says(&process, &client, "ready", "server does not support TLS").await;
    let missing = server.target_with("host=127.0.0.1 dbname=nowhere sslmode=prefer");
    let error = missing.connect().await.unwrap_err().to_string();
    assert!(error.contains("does not exist (SQLSTATE 3D000)"), "{error}");
}
