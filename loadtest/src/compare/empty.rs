//! An HTTP server that reads a body and says yes: what requests cost at least.
//!
//! Keeps one invariant: it answers what the service answers to one event, byte
//! for byte as long, so that the difference is what the service does.

use std::io::Read as _;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;

/// The hidden subcommand that runs it.
pub(crate) const COMMAND: &str = "empty-handler";

/// What the service says to one event at `ack=durable`.
const ANSWER: &str = r#"{"ack":"durable","accepted":1,"rejected":[]}"#;

/// Listens on a free port, says which, and serves until standard input ends.
pub(crate) fn run() -> anyhow::Result<()> {
    // As many threads as the service has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot listen on a free port")?;
        println!("{}", listener.local_addr()?);
        let router = Router::new()
            .route("/v1/interactions", post(answer))
            .route("/v1/exposures", post(answer));
        // Whoever started us holds the other end, and lets go of it when he ends.
        let orphaned =
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            served = axum::serve(listener, router) => served.context("cannot serve"),
            _ = orphaned => Ok(()),
        }
    })
}

async fn answer(_body: Bytes) -> impl IntoResponse {
    (
        StatusCode::ACCEPTED,
        [
            (header::CONTENT_TYPE.as_str(), "application/json"),
            ("x-ingest-ack", "durable"),
        ],
        ANSWER,
    )
}
