//! The findings in force.
//!
//! Each source replaces its own findings as a whole. A finding is logged when it
//! comes and when it goes, however often it is found in between.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;
use tracing::{error, info, warn};

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::metrics::{ByFinding, Metrics};

use crate::finding::{Finding, Severity};
use crate::postgres::checks::clock;
use crate::postgres::checks::pooler::pooler;
use crate::postgres::error::Error;

/// Where findings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What the catalog says.
    Database,
    /// The schema could not be brought up to date.
    Migration,
    /// A pooler that hands one server connection to several sessions.
    Pooler,
    /// How the last connection was made.
    Transport,
    /// The clock.
    Clock,
    /// What the first look found that may change by itself.
    Start,
    /// What the operating system allows this process.
    Process,
}

const SOURCES: usize = 7;

/// Holds what was found, for readiness, metrics and the log.
#[derive(Debug)]
pub struct Board {
    metrics: Arc<Metrics>,
    now: fn() -> Micros,
    /// Connections that the service keeps open.
    connections: u32,
    found: Mutex<[Vec<Finding>; SOURCES]>,
    /// A bit for each table that events are not taken for.
    refused: AtomicU8,
    /// A bit for each table that was found fit once.
    was_fit: AtomicU8,
    is_prepared: watch::Sender<bool>,
}

impl Board {
    /// A board with nothing on it.
    pub fn new(metrics: Arc<Metrics>, now: fn() -> Micros, connections: u32) -> Self {
        Self {
            metrics,
            now,
            connections,
            found: Mutex::default(),
            refused: AtomicU8::new(0),
            was_fit: AtomicU8::new(0),
            is_prepared: watch::Sender::new(false),
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
                Severity::Note if source == Source::Transport => warn!(code, "{finding}"),
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
        // Once rows of a table were storable, a fault is mended before the spool
        // is full, so its events go on being taken. Before that they may never be.
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

    /// All findings, the worst first.
    pub fn all(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.found().iter().flatten().cloned().collect();
        all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        all
    }

    /// Why events of `table` are not taken, if they are not.
    pub fn refusal(&self, table: Table) -> Option<Finding> {
        if self.refused.load(Ordering::Relaxed) & bit(table) == 0 {
            return None;
        }
        let found = self.found();
        let mut all = found.iter().flatten();
        all.find(|finding| finding.stops(table)).cloned()
    }

    /// Checks a connection, and puts up what it finds. From then on the schema
    /// counts as prepared: as far as this service can bring it.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn inspect(&self, client: &Client) -> Result<(), Error> {
        let findings = crate::postgres::checks::inspect(client, self.connections).await?;
        self.is_prepared.send_replace(true);
        self.put(Source::Database, findings);
        Ok(())
    }

    /// Checks again while something is to be mended: writers look when they connect,
    /// and what is mended need not break a connection.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn look_again(&self, client: &Client) -> Result<(), Error> {
        if self.found()[Source::Database as usize].is_empty() {
            return Ok(());
        }
        let findings = crate::postgres::checks::inspect(client, self.connections).await?;
        self.put(Source::Database, findings);
        Ok(())
    }

    /// Checks a writer's new connection: an error is also what keeps the rows of
    /// its table from being stored. Waits for the schema to be brought up to
    /// date, where that is why.
    pub(crate) async fn admit(
        &self,
        client: &Client,
        table: Table,
        wait_max: Duration,
    ) -> Result<(), Error> {
        let mut findings = crate::postgres::checks::inspect(client, self.connections).await?;
        if findings
            .iter()
            .any(|finding| finding.severity == Severity::Fault)
        {
            let mut prepared = self.is_prepared.subscribe();
            if !*prepared.borrow_and_update() {
                // Past the limit the writer says what it sees.
                drop(tokio::time::timeout(wait_max, prepared.wait_for(|done| *done)).await);
                findings = crate::postgres::checks::inspect(client, self.connections).await?;
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

    /// Says how a connection was made: `clear_text` is why it has no TLS though
    /// TLS was preferred.
    pub(crate) fn note_transport(&self, clear_text: Option<&str>) {
        let finding = clear_text.map(|reason| {
            Finding::new(
                Severity::Note,
                "clear_text",
                format!("connections to PostgreSQL are not encrypted: {reason}"),
                "sslmode=prefer allows that, and whatever is between here and there can read along",
                "mend TLS at the server, or set sslmode=require, or sslmode=disable to say that it is meant",
            )
        });
        self.put(Source::Transport, finding.into_iter().collect());
    }

    /// Looks at an error for what names its cause better than its words do.
    pub fn note_error(&self, error: &Error) {
        let is_pooler = match error {
            Error::Unfit(finding) => *finding == pooler(),
            // Our statements and their names are known to our session alone.
            Error::Statement { source, .. } => source
                .code()
                .is_some_and(|code| matches!(code.code(), "26000" | "42P05")),
            _ => false,
        };
        if is_pooler {
            self.put(Source::Pooler, vec![pooler()]);
        }
    }

    fn found(&self) -> MutexGuard<'_, [Vec<Finding>; SOURCES]> {
        // Lists are replaced as a whole, so a panic elsewhere has not left one half done.
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
