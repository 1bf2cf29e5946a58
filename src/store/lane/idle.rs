//! What a writer does while there is nothing to write: it sees whether Postgres
//! is still there.
//!
//! Readiness then tells that Postgres is away before the next event comes, and
//! that it is back without one. Under load none of this runs.

use std::time::Duration;

use tokio_postgres::Client;
use tracing::{info, warn};

use super::super::error::{Chain, Trouble, limited};
use super::super::status::Health;
use super::{Sink, Writer};

/// Two seconds idle and two without an answer: known within five.
const PING_AFTER: Duration = Duration::from_secs(2);
const PING_LIMIT: Duration = Duration::from_secs(2);

impl Writer {
    /// Waits for `gathering`; pings the connection, or makes one, as long as
    /// that takes.
    ///
    /// A ping that is under way when the wait ends is left to its answer:
    /// statements of one connection are carried out in turn.
    pub(super) async fn ping_while(&self, gathering: impl Future<Output = ()>, sink: &mut Sink) {
        tokio::select! {
            biased;
            () = gathering => {}
            () = self.ping_for_ever(sink) => {}
        }
    }

    async fn ping_for_ever(&self, sink: &mut Sink) {
        loop {
            tokio::time::sleep(PING_AFTER).await;
            let alive = match &sink.open {
                Some(open) => ping(&open.session.client).await,
                None => self.connect().await.map(|open| {
                    sink.open = Some(open);
                }),
            };
            let table = self.stream.table;
            match alive {
                Ok(()) => {
                    if self.status.clear(Health::Away) {
                        info!(%table, "Postgres answers again");
                    }
                }
                Err(trouble) => {
                    sink.open = None;
                    self.checks.note_trouble(&trouble);
                    if self.status.raise(Health::Away) < Health::Away {
                        warn!(%table, error = %Chain(&trouble), "Postgres does not answer; events are kept in the spool until it does");
                    }
                }
            }
        }
    }
}

/// The cheapest round trip there is.
async fn ping(client: &Client) -> Result<(), Trouble> {
    limited(
        "see whether Postgres answers",
        PING_LIMIT,
        client.batch_execute(""),
    )
    .await
}
