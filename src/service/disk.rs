//! What works on the spool's disk apart from the lanes: the committing thread, the watch over the disk, and
//! the last cleaning.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::tasks::span;
use crate::admission::record::InMemory;
use crate::event::result::RecordResult;
use crate::log::spool;
use crate::log::spool::shared::Spool;

/// Longest wait for the deletion of finished segments, which takes milliseconds.
const RECLAIM_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often the spool's disk is checked for a stall.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs the group committer on a thread. The receiver completes when it has ended; an error means
/// that it panicked.
///
/// The thread is not one of the runtime's: a runtime that is dropped waits for its blocking
/// threads, however long the disk hangs.
pub(super) fn commit_on_a_thread(
    committer: spool::append::group_committer::GroupCommitter<InMemory, RecordResult>,
) -> Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || {
            span("the committing thread").in_scope(|| committer.run());
            // The service may have stopped waiting.
            ended.send(()).ok();
        })
        .context("cannot start the spool's thread")?;
    Ok(end)
}

/// Deletes finished segments. If the disk hangs, the next start does it.
pub(super) async fn reclaim(spool: &Spool) {
    let spool = spool.clone();
    let deleted = tokio::task::spawn_blocking(move || spool.reclaim());
    if tokio::time::timeout(RECLAIM_WAIT_MAX, deleted)
        .await
        .is_err()
    {
        warn!(
            "the disk of the spool does not answer: segments that are done with stay for the next start"
        );
    }
}

/// Logs once that the spool's disk is stalled, and once that it answers again.
pub(super) async fn watch_disk(spool: Spool) {
    let mut hangs = false;
    loop {
        tokio::time::sleep(DISK_LOOK_EVERY).await;
        match (hangs, spool.stalled()) {
            (false, Some(lasts)) => {
                hangs = true;
                warn!(
                    seconds = lasts.as_secs(),
                    "the disk of the spool does not answer; events wait for it, and are refused soon"
                );
            }
            (true, None) => {
                hangs = false;
                info!("the disk of the spool answers again");
            }
            (false, None) | (true, Some(_)) => {}
        }
    }
}
