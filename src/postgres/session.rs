//! A connection with its driver task.
//!
//! Invariant: a dropped session also ends at the server, and within a bounded time here. An idle
//! one is closed with a Terminate message. A running statement is cancelled. A session that was
//! given up, or whose connection broke here, is ended from a second connection: the server may not
//! know yet that the first is dead, and would keep its transaction and row locks.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug};

use super::checks::pooler::pooler;
use super::connect::connection::{Connection, Driver};
use super::connect::{Reused, Target, prepare_session};
use super::error::{Error, describe};

/// The Terminate message is small. A close takes longer only if a statement still runs.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// The same once the program ends: a cancel request has to be sent before it does.
const GOODBYE_LIMIT_AT_END: Duration = Duration::from_millis(200);

/// A cancel request needs a new connection; no statement waits for it.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// Time for the server to notice that a connection was closed.
const NOTICE: Duration = Duration::from_secs(1);

/// Attempts to end a leftover session at the server, with a pause that doubles: about five minutes
/// in all. After that the server's own timeouts end it.
const TERMINATE_ATTEMPTS: u32 = 8;

/// The drivers of all sessions, so that the process can wait for their end.
static DRIVERS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Cancelled when the program ends: a session that broke is then left to the server's timeouts.
static ENDING: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// An open connection that is set up for our statements. Dropping it closes it.
#[derive(Debug)]
pub struct Session {
    /// The client that sends statements.
    pub client: Client,
    /// Why there is no TLS although it was preferred.
    pub(crate) clear_text: Option<String>,
    end: End,
}

/// Ends the driver when the session is dropped.
#[derive(Debug)]
struct End {
    /// Cancelled when the session is dropped.
    let_go: CancellationToken,
    /// Cancelled before that if nothing more may be sent.
    given_up: CancellationToken,
    /// Cancelled once the connection has ended.
    over: CancellationToken,
    backend: Arc<OnceLock<Backend>>,
}

/// Identifies the session at the server. Process ids are reused, with a later start.
#[derive(Clone, Debug)]
struct Backend {
    pid: String,
    started: String,
}

impl Drop for End {
    fn drop(&mut self) {
        self.let_go.cancel();
    }
}

impl Session {
    /// Connects, within the target's limit.
    pub async fn open(target: &Target, statement_timeout: Option<Duration>) -> Result<Self, Error> {
        let Connection {
            client,
            driver,
            clear_text,
        } = target.connect().await?;
        let end = End {
            let_go: CancellationToken::new(),
            given_up: CancellationToken::new(),
            over: CancellationToken::new(),
            backend: Arc::default(),
        };
        let driven = Driven {
            target: target.clone(),
            cancel: client.cancel_token(),
            let_go: end.let_go.clone(),
            given_up: end.given_up.clone(),
            backend: Arc::clone(&end.backend),
        };
        let over = end.over.clone().drop_guard();
        // This task is not in the service's sets. It ends soon after its session is dropped, and
        // `sessions_ended` waits for it.
        DRIVERS.spawn(driven.run(driver, over).in_current_span());
        let session = Self {
            client,
            clear_text,
            end,
        };
        prepare_session(&session.client, statement_timeout)
            .await
            .map_err(|error| match error.is::<Reused>() {
                true => Error::Unfit(pooler()),
                false => Error::Session(error),
            })?;
        if let Some(backend) = Backend::of(&session.client).await? {
            session.end.backend.get_or_init(|| backend);
        }
        Ok(session)
    }

    /// The process of the session at the server, if it told.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.end.backend.get()?.pid.parse().ok()
    }

    /// Waits until the connection has ended, on either side.
    pub async fn over(&self) {
        self.end.over.cancelled().await;
    }

    /// Drops a connection that did not answer in time.
    pub fn give_up(self) {
        self.end.given_up.cancel();
    }
}

/// Waits until all dropped sessions have ended, at most for `limit`.
pub async fn sessions_ended(limit: Duration) {
    DRIVERS.close();
    ENDING.cancel();
    if timeout(limit, DRIVERS.wait()).await.is_err() {
        debug!(
            sessions = DRIVERS.len(),
            "connections to Postgres are cut off"
        );
    }
}

/// Whether a connection whose client was dropped closes in time.
async fn is_closed(driver: &mut Driver) -> bool {
    let at_end = async {
        ENDING.cancelled().await;
        sleep(GOODBYE_LIMIT_AT_END).await;
    };
    tokio::select! {
        biased;
        _ = driver => true,
        () = sleep(GOODBYE_LIMIT) => false,
        () = at_end => false,
    }
}

/// What the driver task needs to close its connection.
struct Driven {
    target: Target,
    cancel: CancelToken,
    let_go: CancellationToken,
    given_up: CancellationToken,
    backend: Arc<OnceLock<Backend>>,
}

impl Driven {
    async fn run(self, mut driver: Driver, over: DropGuard) {
        let is_given_up = tokio::select! {
            ended = &mut driver => {
                drop((driver, over));
                // A waiting statement gets this error, too.
                if let Err(error) = ended {
                    debug!(error = describe(&error), "a connection to Postgres broke");
                    // An error of the server's is its own end of the session.
                    if error.as_db_error().is_none() {
                        tokio::select! {
                            () = self.terminate() => {}
                            () = ENDING.cancelled() => {}
                        }
                    }
                }
                return;
            }
            () = self.let_go.cancelled() => self.given_up.is_cancelled(),
        };
        // The client is dropped, so the driver sends Terminate once nothing is running.
        if !is_given_up && is_closed(&mut driver).await {
            return;
        }
        self.cancel().await;
        if !is_given_up && is_closed(&mut driver).await {
            return;
        }
        drop(driver);
        self.terminate().await;
    }

    async fn cancel(&self) {
        let cancelled = timeout(CANCEL_LIMIT, self.target.cancel(&self.cancel)).await;
        if let Ok(Err(error)) = cancelled {
            debug!("{error:#}");
        }
    }

    /// Ends the session at the server, unless it has ended by itself.
    async fn terminate(&self) {
        let Some(backend) = self.backend.get() else {
            return;
        };
        let mut pause = NOTICE;
        for _ in 0..TERMINATE_ATTEMPTS {
            sleep(pause).await;
            match self.target.connect().await {
                Ok(Connection { client, driver, .. }) => {
                    let terminate = async {
                        let client = client;
                        backend.terminate(&client).await
                    };
                    let done = async { tokio::join!(terminate, driver).0 };
                    match timeout(CANCEL_LIMIT, done).await {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => debug!(error = describe(&error), "cannot end a session"),
                        Err(_) => {}
                    }
                }
                Err(error) => debug!(%error, "cannot end a session"),
            }
            pause *= 2;
        }
    }
}

impl Backend {
    async fn of(client: &Client) -> Result<Option<Self>, Error> {
        let sql = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let asking = client.simple_query(sql);
        let doing = "ask for the session's process";
        let rows = super::error::limited(doing, GOODBYE_LIMIT * 10, asking).await?;
        Ok(rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Self {
                pid: row.get(0)?.to_owned(),
                started: row.get(1)?.to_owned(),
            }),
            _ => None,
        }))
    }

    async fn terminate(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let Self { pid, started } = self;
        let sql = format!(
            "SET TimeZone = 'UTC';
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE pid = {pid} AND backend_start = '{started}'"
        );
        client.batch_execute(&sql).await
    }
}
