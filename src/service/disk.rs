//! What works on the log's medium apart from the lanes: the thread that makes records durable, the
//! watch over the medium, and the last cleaning.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::tasks::span;
use crate::log::append::{Append, Capacity};

/// Longest wait for the deletion of finished segments, which takes milliseconds.
const RECLAIM_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often the log's medium is checked for a stall.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Makes records durable on a thread. The receiver completes when it has ended; an error means that
/// it panicked.
///
/// The thread is not one of the runtime's: a runtime that is dropped waits for its blocking
/// threads, however long the disk hangs.
pub(super) fn append_on_a_thread(appender: impl Append) -> Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || {
            span("the committing thread").in_scope(|| appender.run());
            // The service may have stopped waiting.
            ended.send(()).ok();
        })
        .context("cannot start the log's thread")?;
    Ok(end)
}

/// Deletes what is done with. If the disk hangs, the next start does it.
pub(super) async fn clear_up(finish: Box<dyn FnOnce() + Send>) {
    let done = tokio::task::spawn_blocking(finish);
    if tokio::time::timeout(RECLAIM_WAIT_MAX, done).await.is_err() {
        warn!(
            "the disk of the spool does not answer: segments that are done with stay for the next start"
        );
    }
}

/// Logs once that the log's medium is stalled, and once that it answers again.
pub(super) async fn watch_disk(log: Arc<dyn Capacity>) {
    let medium = log.medium();
    let mut hangs = false;
    loop {
        tokio::time::sleep(DISK_LOOK_EVERY).await;
        match (hangs, log.stalled()) {
            (false, Some(lasts)) => {
                hangs = true;
                warn!(
                    seconds = lasts.as_secs(),
                    "{medium} does not answer; events wait for it, and are refused soon"
                );
            }
            (true, None) => {
                hangs = false;
                info!("{medium} answers again");
            }
            (false, None) | (true, Some(_)) => {}
        }
    }
}
