//! The findings in force.
//!
//! Each source replaces its own findings as a whole. A finding is logged when it appears and when
//! it is gone, however often it is found in between.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::Client;
use tracing::{error, info, warn};

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::metrics::{ByFinding, Metrics};

use crate::finding::{Finding, Severity};
use crate::postgres::checks::clock;
use crate::postgres::checks::lean;
use crate::postgres::checks::pooler::pooler;
use crate::postgres::checks::server;
use crate::postgres::error::Error;

/// The check that a finding comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The catalog and settings of the database.
    Database,
    /// A migration that failed.
    Migration,
    /// A pooler that hands one server connection to several sessions.
    Pooler,
    /// The transport of the last connection: TLS or clear text.
    Transport,
    /// The clock's offset from the server.
    Clock,
    /// Notes of the check at the start, about what may change by itself.
    Start,
    /// The operating system's limits on this process.
    Process,
    /// The certificate of the HTTPS listener.
    Certificate,
}

const SOURCES: usize = 8;

/// How long a check without findings counts: one costs a round trip.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// Holds the findings for readiness, metrics and the log.
#[derive(Debug)]
pub struct Board {
    metrics: Arc<Metrics>,
    now: fn() -> Micros,
    /// Connections that the service keeps open.
    connections: u32,
    found: Mutex<[Vec<Finding>; SOURCES]>,
    /// A bit for each table that refuses events.
    refused: AtomicU8,
    /// A bit for each table that has passed the checks once.
    was_fit: AtomicU8,
    is_prepared: watch::Sender<bool>,
    /// When the database was checked last.
    inspected_at: Mutex<Option<Instant>>,
}

impl Board {
    /// A board without findings.
    pub fn new(metrics: Arc<Metrics>, now: fn() -> Micros, connections: u32) -> Self {
        Self {
            metrics,
            now,
            connections,
            found: Mutex::default(),
            refused: AtomicU8::new(0),
            was_fit: AtomicU8::new(0),
            is_prepared: watch::Sender::new(false),
            inspected_at: Mutex::default(),
        }
    }

    /// Replaces the findings of a source.
    pub fn put(&self, source: Source, findings: Vec<Finding>) {
        let mut found = self.found();
        let before = std::mem::replace(&mut found[source as usize], findings);
        let after = &found[source as usize];
        for finding in after.iter().filter(|finding| !before.contains(finding)) {
            self.gauge(finding).inc();
            let code = finding.code;
            match finding.severity {
                Severity::Fault => error!(code, "{finding}"),
                Severity::Degraded => warn!(code, "{finding}"),
                Severity::Note
                    if matches!(source, Source::Transport | Source::Certificate)
                        || lean::CODES.contains(&code) =>
                {
                    warn!(code, "{finding}");
                }
                Severity::Note => info!(code, "{finding}"),
            }
        }
        for finding in before.iter().filter(|finding| !after.contains(finding)) {
            self.gauge(finding).dec();
            info!(code = finding.code, "no longer so: {}", finding.seen);
        }
        let stopped = bits(|table| found.iter().flatten().any(|finding| finding.stops(table)));
        if source == Source::Database && *self.is_prepared.borrow() {
            self.was_fit.fetch_or(!stopped, Ordering::Relaxed);
        }
        // Events of a table that was fit once are still accepted: the spool keeps them, and the
        // fault may be fixed before the spool is full. A table that was never fit may never be.
        let was_fit = self.was_fit.load(Ordering::Relaxed);
        self.refused.store(stopped & !was_fit, Ordering::Relaxed);
    }

    fn gauge(
        &self,
        finding: &Finding,
    ) -> impl std::ops::Deref<
        Target = prometheus_client::metrics::gauge::Gauge<i64, std::sync::atomic::AtomicI64>,
    > {
        self.metrics.findings.get_or_create(&ByFinding {
            code: finding.code,
            severity: finding.severity.as_str(),
        })
    }

    /// All findings, the most severe first.
    pub fn all(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.found().iter().flatten().cloned().collect();
        all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        all
    }

    /// Why events of `table` are refused, or `None` if they are accepted.
    pub fn refusal(&self, table: Table) -> Option<Finding> {
        if self.refused.load(Ordering::Relaxed) & bit(table) == 0 {
            return None;
        }
        let found = self.found();
        let mut all = found.iter().flatten();
        all.find(|finding| finding.stops(table)).cloned()
    }

    /// Checks the database and replaces its findings. From then on the schema counts as prepared:
    /// the service has migrated as far as it can.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn inspect(&self, client: &Client) -> Result<(), Error> {
        let findings = self.check(client).await?;
        self.is_prepared.send_replace(true);
        self.put(Source::Database, findings);
        Ok(())
    }

    async fn check(&self, client: &Client) -> Result<Vec<Finding>, Error> {
        let findings = crate::postgres::checks::inspect(client, self.connections).await?;
        *self.inspected_at() = Some(Instant::now());
        Ok(findings)
    }

    /// Repeats the check while it has findings, and where the last one is a minute ago. Lanes check
    /// only when they connect; fixing a fault need not break a connection, nor need a migration of
    /// another program's.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn look_again(&self, client: &Client) -> Result<(), Error> {
        let is_recent = self
            .inspected_at()
            .is_some_and(|at| at.elapsed() < LOOK_AFTER);
        if is_recent && self.found()[Source::Database as usize].is_empty() {
            return Ok(());
        }
        let findings = self.check(client).await?;
        self.put(Source::Database, findings);
        Ok(())
    }

    /// Checks a lane's new connection. Fails with a fault that keeps rows of `table` from being
    /// stored. If there is a fault and the schema is not prepared yet, waits for that first.
    pub(crate) async fn admit(
        &self,
        client: &Client,
        table: Table,
        wait_max: Duration,
    ) -> Result<(), Error> {
        let mut findings = self.check(client).await?;
        if findings
            .iter()
            .any(|finding| finding.severity == Severity::Fault)
        {
            let mut prepared = self.is_prepared.subscribe();
            if !*prepared.borrow_and_update() {
                // After the limit the lane reports the present findings.
                drop(tokio::time::timeout(wait_max, prepared.wait_for(|done| *done)).await);
                findings = self.check(client).await?;
            }
        }
        let fault = findings
            .iter()
            .find(|finding| finding.stops(table))
            .cloned();
        self.put(Source::Database, findings);
        match fault {
            None => Ok(()),
            Some(fault) => Err(Error::Unfit(fault)),
        }
    }

    /// Compares this machine's clock with the server's.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn compare_clocks(&self, client: &Client) -> Result<(), Error> {
        let offset = clock::compare(client, self.now).await?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge in seconds needs no microseconds"
        )]
        let seconds = offset.ahead_us as f64 / 1e6;
        self.metrics.clock_offset_seconds.set(seconds);
        self.put(Source::Clock, clock::judge(offset).into_iter().collect());
        Ok(())
    }

    /// Records how a connection was made: `clear_text` is the reason for no TLS where TLS was
    /// preferred.
    pub(crate) fn note_transport(&self, clear_text: Option<&str>) {
        let finding = clear_text.map(server::clear_text);
        self.put(Source::Transport, finding.into_iter().collect());
    }

    /// Adds the pooler finding if the error comes from a transaction pooler, which its message does
    /// not name.
    pub fn note_error(&self, error: &Error) {
        let is_pooler = match error {
            Error::Unfit(finding) => *finding == pooler(),
            // Only our own session knows our prepared statements.
            Error::Statement { source, .. } => source
                .code()
                .is_some_and(|code| matches!(code.code(), "26000" | "42P05")),
            _ => false,
        };
        if is_pooler {
            self.put(Source::Pooler, vec![pooler()]);
        }
    }

    fn inspected_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.inspected_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, [Vec<Finding>; SOURCES]> {
        // Lists are replaced as a whole, so a panic elsewhere leaves none half written.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn bit(table: Table) -> u8 {
    1 << table as u8
}

fn bits(holds: impl Fn(Table) -> bool) -> u8 {
    let set = Table::ALL.into_iter().filter(|&table| holds(table));
    set.fold(0, |bits, table| bits | bit(table))
}
