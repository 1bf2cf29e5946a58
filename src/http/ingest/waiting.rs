//! The wait until the level that a request asks for is reached.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ack::Ack;
use super::refusal::full;
use crate::admission::admit::{Admission, Overload, Synced};
use crate::admission::memory::Reservation;
use crate::admission::record::Aside;
use crate::event::result::RecordResult;
use crate::event::row::rows::Rows;
use crate::http::app::App;
use crate::http::problem::Problem;

/// Longest wait for a sync. A disk that takes longer counts as broken.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a request that waits for a sync checks whether the disk is stalled.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Hands rows over and waits until `ack` is reached, or the highest level below it that is in time.
/// Returns the level reached.
pub(super) async fn hand_over(
    app: &App,
    admission: &Admission,
    rows: Rows,
    reservation: Reservation,
    ack: Ack,
) -> Result<Reached, Problem> {
    let handed = HandedOver::submit(admission, rows, reservation, ack);
    handed.map_err(|reason| full(app, reason))?.wait(app).await
}

/// How far rows have come when their response is due.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) ack: Ack,
    /// Why it is not committed, though that was asked for; or that the rows are not in the log.
    pub(super) reason: Option<&'static str>,
    /// What became of the rows, if that is known.
    pub(super) result: Option<RecordResult>,
}

/// The COMMIT, or the writer's word of it, is too late for the response.
pub(crate) const COMMIT_TIMEOUT: &str = "commit_timeout";

/// The log is away, and the rows are on this machine's disk until it is back.
const SPOOLED: &str = "spooled";

/// The lane gave the rows up before it could tell: the service stops, or another one stores them.
pub(crate) const NO_RESULT: &str = "no_result";

impl Reached {
    fn without_result(ack: Ack, reason: Option<&'static str>) -> Self {
        Self {
            ack,
            reason,
            result: None,
        }
    }
}

/// Rows that were handed over.
#[derive(Debug)]
pub(super) struct HandedOver {
    /// Where the sync is reported; `None` if it is not waited for.
    durable: Option<oneshot::Receiver<Synced>>,
    /// Where it is reported what became of the rows; `None` if that is not waited for.
    result: Option<oneshot::Receiver<RecordResult>>,
    /// Whether the rows are on this machine's disk and not in the log; `None` if that cannot be.
    aside: Option<Aside>,
}

impl HandedOver {
    /// Hands rows over, or says why there is no room.
    pub(super) fn submit(
        admission: &Admission,
        rows: Rows,
        reservation: Reservation,
        ack: Ack,
    ) -> Result<Self, Overload> {
        let (synced, durable) = (ack != Ack::Received).then(oneshot::channel).unzip();
        let (sender, result) = (ack == Ack::Committed).then(oneshot::channel).unzip();
        let aside = admission.log().keeps_aside().then(Aside::default);
        admission.submit(rows, reservation, synced, sender, aside.clone())?;
        Ok(Self {
            durable,
            result,
            aside,
        })
    }

    /// Waits until the level is reached, or the highest level below it that is in time. Returns the
    /// level reached.
    pub(super) async fn wait(self, app: &App) -> Result<Reached, Problem> {
        let refuse = |reason: Overload| full(app, reason);
        let Some(durable) = self.durable else {
            return Ok(Reached::without_result(Ack::Received, None));
        };
        match synced_in_time(app, durable).await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(refused))) => return Err(refuse(refused.into())),
            // The sender is gone: the service is stopping.
            Some(Err(_)) => return Err(refuse(Overload::Stopping)),
            None => {
                return Err(Problem::unavailable(
                    "disk_stalled",
                    "the disk of the spool has not answered; the events may be stored or not: send them again",
                    app.admission.retry_after(Overload::Disk),
                ));
            }
        }
        if self.aside.is_some_and(|aside| aside.is_noted()) {
            return Ok(Reached::without_result(Ack::Durable, Some(SPOOLED)));
        }
        let Some(result) = self.result else {
            return Ok(Reached::without_result(Ack::Durable, None));
        };
        // Without a result the events are in the log, and are stored later.
        Ok(
            match tokio::time::timeout(app.commit_timeout, result).await {
                Ok(Ok(result)) => Reached {
                    ack: Ack::Committed,
                    reason: None,
                    result: Some(result),
                },
                Ok(Err(_)) => Reached::without_result(Ack::Durable, Some(NO_RESULT)),
                Err(_) => Reached::without_result(Ack::Durable, Some(COMMIT_TIMEOUT)),
            },
        )
    }
}

/// Waits for the sync of a record; `None` if the disk does not answer.
async fn synced_in_time<T>(
    app: &App,
    mut durable: oneshot::Receiver<T>,
) -> Option<Result<T, oneshot::error::RecvError>> {
    let began = Instant::now();
    loop {
        // The wait is cut short once the disk is known to be stalled.
        if let Ok(answer) = tokio::time::timeout(DISK_LOOK_EVERY, &mut durable).await {
            return Some(answer);
        }
        let stalled = app.admission.has_room(0) == Err(Overload::Stalled);
        if stalled || began.elapsed() >= DURABLE_WAIT_MAX {
            return None;
        }
    }
}
