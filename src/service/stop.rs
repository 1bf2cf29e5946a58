//! The end of the lanes, and what is said while it is awaited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::accounts::status::LaneStatus;
use crate::log::append::Capacity;
use crate::metrics::Metrics;

/// When a slow stop first logs what it waits for, and how often after that.
const SAY_FIRST: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(5);

/// How often a stop checks whether any work is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The lanes during a stop, to see whether any work is left.
pub(super) struct LanesEnd<'s> {
    pub(super) committing: AbortHandle,
    pub(super) writers: &'s [AbortHandle],
    pub(super) lanes: &'s [Arc<LaneStatus>],
    pub(super) log: &'s dyn Capacity,
}

impl LanesEnd<'_> {
    /// Waits until the group committer has ended, the spool is empty, and the only writers left are
    /// those that never reached a database: they would keep trying to connect. If no writer is left,
    /// the other tasks end by themselves: leases are still to be given back.
    pub(super) async fn nothing_left(self) {
        while !self.committing.is_finished()
            || self.log.usage().items > 0
            || !self.is_any_left_but_none_was_reached()
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_any_left_but_none_was_reached(&self) -> bool {
        let all = self.writers.iter().zip(self.lanes);
        let mut left = all.filter(|(writer, _)| !writer.is_finished()).peekable();
        left.peek().is_some() && left.all(|(_, lane)| !lane.was_reached())
    }
}

/// Logs what a slow stop waits for.
pub(super) async fn say_what_is_awaited(
    stopping: CancellationToken,
    grace: Duration,
    metrics: Arc<Metrics>,
    log: Arc<dyn Capacity>,
) {
    stopping.cancelled().await;
    let started = Instant::now();
    tokio::time::sleep(SAY_FIRST).await;
    loop {
        let connections = metrics.connections.get();
        let spooled = log.usage().items;
        let left = grace.saturating_sub(started.elapsed()).as_secs();
        let what = match (connections > 0, spooled > 0) {
            (true, true) => "open requests, and for Postgres to take what is spooled",
            (true, false) => "open requests",
            (false, true) => "Postgres to take what is spooled",
            (false, false) => "the last tasks to end",
        };
        info!(
            connections,
            spooled,
            seconds_left = left,
            "stopping: waiting for {what}"
        );
        tokio::time::sleep(SAY_EVERY).await;
    }
}
