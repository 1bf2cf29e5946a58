//! Loads without the service: psql's `\copy`, and binary COPY in one stream or two.

use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::SinkExt as _;
use recsys_ingest::event::table::Table;
use recsys_ingest::postgres::session::Session;
use tokio::task::JoinSet;

use super::rows::{HEADER, Rows, TRAILER, columns};
use super::stage::Stage;

/// Bytes handed to a connection at once, as the service does.
const CHUNK_BYTES: usize = 256 * 1024;

/// Has psql load a file of text, and says how long it took, psql's start included.
pub(crate) async fn text(
    stage: &Stage,
    table: &str,
    columns: &str,
    file: &Path,
) -> anyhow::Result<Duration> {
    let mut psql = Command::new(&stage.psql);
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", stage.url(), "-c"])
        .arg(format!(
            "\\copy {table} ({columns}) FROM '{}'",
            file.display()
        ))
        .stdin(Stdio::null());
    // Blocks until psql ends.
    tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let output = psql.output().context("cannot start psql")?;
        let took = began.elapsed();
        anyhow::ensure!(
            output.status.success(),
            "psql failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(took)
    })
    .await
    .context("psql was interrupted")?
}

/// Loads all rows in `streams` concurrent COPYs, and says how long it took.
///
/// Streams take the blocks in turn, so that all of them write at the same edge
/// of the index, as writers of a live stream of events do.
pub(crate) async fn binary(stage: &Stage, rows: &Rows, streams: usize) -> anyhow::Result<Duration> {
    let mut sessions = Vec::new();
    for _ in 0..streams {
        sessions.push(Session::open(&stage.target, None).await?);
    }
    let began = Instant::now();
    let mut copies = JoinSet::new();
    for (at, session) in sessions.into_iter().enumerate() {
        let blocks: Vec<Bytes> = rows
            .blocks
            .iter()
            .skip(at)
            .step_by(streams)
            .cloned()
            .collect();
        let table = rows.table;
        copies.spawn(async move { copy(&session, table, &blocks).await });
    }
    while let Some(copied) = copies.join_next().await {
        copied.context("a COPY panicked")??;
    }
    Ok(began.elapsed())
}

/// One COPY, and its COMMIT.
pub(crate) async fn copy(session: &Session, table: Table, blocks: &[Bytes]) -> anyhow::Result<()> {
    let statement = format!(
        "COPY {table} ({}) FROM STDIN (FORMAT binary)",
        columns(table)
    );
    let cannot = || format!("cannot copy into {table}");
    let sink = session.client.copy_in::<_, Bytes>(&statement);
    let mut sink = pin!(sink.await.with_context(cannot)?);
    sink.feed(Bytes::from_static(HEADER)).await?;
    for block in blocks {
        let mut rest = block.clone();
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            sink.feed(chunk).await.with_context(cannot)?;
        }
    }
    sink.feed(Bytes::from_static(TRAILER)).await?;
    sink.finish().await.with_context(cannot)?;
    Ok(())
}
