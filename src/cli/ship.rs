//! `recsys-ingest ship`: follows files of events, and posts what is added.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;
use tracing::info;

use super::shipping::{line_bytes_max, now_us, pipeline, report};
use super::signals::Stop;
use super::terminal::print;
use crate::config::import::Ship;
use crate::service::bind::bind;
use crate::ship::files::Own;
use crate::ship::follow::{Follower, FollowerSettings};
use crate::ship::kept::Kept;
use crate::ship::ops;
use crate::ship::pipeline::WAITING;
use crate::ship::status::Status;

/// The setting of the address, as messages name it.
const OPS_LISTEN: &str = "--ops-listen, INGEST_SHIP_OPS_LISTEN";

pub(crate) async fn run(config: Ship, stop: Stop) -> Result<()> {
    let stop = stop.begun().clone();
    let first = config.folders.first().context("--dir names no folder")?;
    let state_dir = config
        .state_dir
        .unwrap_or_else(|| first.join(".recsys-ingest-ship"));
    let status = Arc::new(Status::default());
    let rejects = config
        .rejects
        .unwrap_or_else(|| state_dir.join("rejected.jsonl"));
    let pipeline = pipeline(&config.upstream, &state_dir, &rejects, &status, true, &stop)?;
    let mut operators = JoinSet::new();
    for listener in bind(OPS_LISTEN, std::slice::from_ref(&config.ops_listen))? {
        let address = listener.local_addr()?;
        info!(%address, "listening");
        operators.spawn(ops::serve(listener, Arc::clone(&status)));
    }
    let rejects = pipeline.rejects.path().to_owned();
    let (to, from) = flume::bounded(WAITING);
    let known = pipeline.positions.files.iter();
    let follower = Follower::new(FollowerSettings {
        folders: config.folders.clone(),
        own: Own::of(&[&state_dir, &rejects]),
        kept: Kept::of(&state_dir),
        known: known
            .map(|(key, position)| (*key, position.clone()))
            .collect(),
        next_key: pipeline.positions.next_key(),
        line_bytes_max: line_bytes_max(&config.upstream),
        to,
        status: Arc::clone(&status),
        stop: stop.clone(),
        now_us,
    });
    info!(url = config.upstream.url, state = %state_dir.display(), "shipping");
    let reading = tokio::task::spawn_blocking(move || follower.run());
    tokio::select! {
        delivered = pipeline.run(from) => delivered?,
        Some(ended) = operators.join_next() => ended.context("the listener of --ops-listen broke off")??,
    }
    reading.await.context("following the files broke off")?;
    print(&report(&status, &rejects, config.upstream.ack).to_string())?;
    if !stop.is_cancelled() {
        bail!("following the files ended by itself, which is a bug");
    }
    Ok(())
}
