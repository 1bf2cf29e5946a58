//! Tasks with names: one that panics, or ends before it was told to, is a fault.
//!
//! Each runs in a span, so that what it logs says whose line it is, also while it panics.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{Instrument as _, Span, error_span};

/// Named tasks, all of them joined.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, Name>,
    /// Faults found by [`Tasks::join`].
    faults: Vec<Fault>,
}

#[derive(Debug)]
struct Name {
    name: String,
    may_end: bool,
}

/// A task that did not end as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{task} {how}")]
pub(crate) struct Fault {
    task: String,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Panicked,
    EndedEarly,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Panicked => "panicked",
            How::EndedEarly => "ended before it was told to",
        })
    }
}

impl Tasks {
    /// Spawns a task that goes on until it is told to end.
    pub(crate) fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let name = name.into();
        self.spawn_in(span(&name), name, task)
    }

    /// [`spawn`](Self::spawn) in a span that says more than the name.
    pub(crate) fn spawn_in(
        &mut self,
        span: Span,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let handle = self.running.spawn(task.instrument(span));
        self.name(handle, name.into(), false)
    }

    /// Spawns a task that ends when its work is done.
    pub(crate) fn spawn_once(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let name = name.into();
        let handle = self.running.spawn(task.instrument(span(&name)));
        self.name(handle, name, true)
    }

    /// Waits for a fault, for ever if there is none. Cancel safe.
    pub(crate) async fn fault(&mut self) -> Fault {
        while let Some(ended) = self.running.join_next_with_id().await {
            if let Some(fault) = self.fault_of(&ended, true) {
                return fault;
            }
        }
        std::future::pending().await
    }

    /// Waits until all tasks have ended, after they were told to. Cancel safe, and may be called
    /// again. A panic of one task does not end the others.
    pub(crate) async fn join(&mut self) {
        while let Some(ended) = self.running.join_next_with_id().await {
            let fault = self.fault_of(&ended, false);
            self.faults.extend(fault);
        }
    }

    /// The panics found by [`Tasks::join`].
    pub(crate) fn faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Aborts the tasks that still run and waits for them, at most for `limit`: a thread that waits
    /// for its disk cannot be ended.
    pub(crate) async fn abort(&mut self, limit: Duration) {
        self.running.abort_all();
        if tokio::time::timeout(limit, self.join()).await.is_err() {
            tracing::warn!(
                tasks = self.running.len(),
                "some tasks do not end; leaving them"
            );
            self.running.detach_all();
        }
    }

    fn name(&mut self, handle: AbortHandle, name: String, may_end: bool) -> AbortHandle {
        self.names.insert(handle.id(), Name { name, may_end });
        handle
    }

    fn fault_of(&mut self, ended: &Result<(Id, ()), JoinError>, early: bool) -> Option<Fault> {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Name { name, may_end } = self.names.remove(&id).expect("every task has a name");
        let how = match ended {
            Err(error) if error.is_panic() => How::Panicked,
            // Aborted, which only [`Tasks::abort`] does.
            Err(_) => return None,
            Ok(_) if early && !may_end => How::EndedEarly,
            Ok(_) => return None,
        };
        Some(Fault { task: name, how })
    }
}

/// The span of a task. Of the highest level, so that a filter that lets a line pass lets its span
/// pass, too. A field `name` would hide the span's own name in JSON.
pub(crate) fn span(name: &str) -> Span {
    error_span!("task", task = name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_with_the_name_of_its_task() {
        let mut tasks = Tasks::default();
        tasks.spawn("the idle one", std::future::pending());
        tasks.spawn_once("the lookout", async { panic!("no good") });
        assert_eq!(tasks.fault().await.to_string(), "the lookout panicked");
        tasks.abort(Duration::from_secs(10)).await;
        assert_eq!(tasks.faults(), []);
    }

    #[tokio::test]
    async fn an_end_before_time_is_a_fault_unless_the_work_is_done_by_then() {
        let mut tasks = Tasks::default();
        tasks.spawn_once("the errand", async {});
        let quiet = tokio::time::timeout(Duration::from_millis(50), tasks.fault());
        assert!(quiet.await.is_err(), "an errand may end");
        tasks.spawn("the guard", async {});
        assert_eq!(
            tasks.fault().await.to_string(),
            "the guard ended before it was told to"
        );
    }

    #[tokio::test]
    async fn once_told_to_end_only_a_panic_is_a_fault() {
        let mut tasks = Tasks::default();
        tasks.spawn("the guard", async {});
        tasks.spawn("the cook", async { panic!("no good") });
        tasks.join().await;
        let faults = tasks.faults();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].to_string(), "the cook panicked");
    }

    #[tokio::test]
    async fn a_thread_that_does_not_end_is_left_after_a_while() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let mut tasks = Tasks::default();
        let thread = tasks
            .running
            .spawn_blocking(move || held.recv().unwrap_or_default());
        tasks.name(thread, "the thread".to_owned(), false);
        tasks.abort(Duration::from_millis(50)).await;
        assert_eq!(tasks.faults(), []);
        drop(release);
    }
}
