//! What a lane does while it has nothing to store: it checks whether Postgres answers, and whether
//! this opening still holds the ledger rows.
//!
//! Readiness then shows that Postgres is away before the next event comes, and that it is back
//! without one. Under load none of this runs.

use std::time::Duration;

use tracing::{info, warn};

use super::connection::{LaneConnection, OpenConnection};
use super::{FencedOff, Writer};
use crate::accounts::status::Health;
use crate::postgres::error::{ErrorChain, limited};
use crate::writer::decision::{Decision, decide};
use crate::writer::error::{Error, ErrorKind};

/// Two seconds idle and two without an answer: a failure is known within five seconds.
const PING_AFTER: Duration = Duration::from_secs(2);
const PING_LIMIT: Duration = Duration::from_secs(2);

impl Writer {
    /// Waits for `gathering`. Until it ends, pings the connection, or opens one.
    ///
    /// A ping under way when the wait ends is not cancelled: Postgres answers it before the next
    /// statement of the connection.
    ///
    /// # Errors
    ///
    /// A later opening holds the spool's ledger rows.
    pub(super) async fn ping_while(
        &self,
        gathering: impl Future<Output = ()>,
        connection: &mut LaneConnection,
    ) -> Result<(), FencedOff> {
        tokio::select! {
            biased;
            () = gathering => Ok(()),
            fenced = self.ping_for_ever(connection) => Err(fenced),
        }
    }

    async fn ping_for_ever(&self, connection: &mut LaneConnection) -> FencedOff {
        // The health that a failed ping has set. Only that one is cleared: any other came from a
        // batch.
        let mut raised = None;
        loop {
            tokio::time::sleep(PING_AFTER).await;
            let alive = match &connection.open {
                Some(open) => self.ping(open).await,
                None => self
                    .connect_and_ask(u64::MAX, false)
                    .await
                    .map(|(open, _)| {
                        connection.open = Some(open);
                    }),
            };
            let error = match alive {
                Ok(()) => {
                    if raised
                        .take()
                        .is_some_and(|health| self.status.clear(health))
                    {
                        info!("Postgres answers again");
                    }
                    continue;
                }
                Err(Error::Fenced(by)) => return FencedOff(by),
                Err(error) => error,
            };
            connection.let_go(&error);
            if let Error::Postgres(error) = &error {
                self.checks.note_error(error);
            }
            let health = match error.class() {
                ErrorKind::Fault => Health::Fault,
                _ => Health::Away,
            };
            if self.status.raise(health) < health {
                raised = Some(health);
                warn!(error = %ErrorChain(&error), "cannot reach Postgres as it has to be; events are kept");
            }
        }
    }

    /// Checks that Postgres answers, and that this opening still holds its ledger row.
    async fn ping(&self, open: &OpenConnection) -> Result<(), Error> {
        let reading = self.stream.read(&open.session.client);
        let row = limited("see whether Postgres answers", PING_LIMIT, reading).await?;
        match decide(
            row.as_ref().map(|row| row.mark),
            open.held.me,
            u64::MAX,
            false,
        ) {
            Decision::Fenced => Err(Error::Fenced(row.and_then(|row| row.holder))),
            Decision::TakeOver => Err(Error::Moved),
            Decision::Store { .. } | Decision::Committed => Ok(()),
        }
    }
}
