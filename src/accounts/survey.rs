//! What Postgres says of partitions, instances and quarantine, for those who look at the live page.
//!
//! One reading is shared by all who look, and counts for [`FRESH`]. While no one looks nothing is
//! read and no connection is open. Changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions::catalog::{self, PartitionInfo};
use crate::partitions::indexes::IndexState;
use crate::postgres::connect::Target;
use crate::postgres::session::Session;

/// How long a reading counts.
const FRESH: Duration = Duration::from_secs(5);

/// How long after the last look the connection stays open, and readings go on.
const WATCHED_FOR: Duration = Duration::from_secs(30);

/// A reading takes milliseconds. After this long Postgres is away without an error.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Partitions of a table that are measured, from the newest on: each costs Postgres a look at the
/// sizes of some ten files.
const MEASURED_MAX: usize = 60;

/// Instances that are listed, from the one that stored last.
const INSTANCES_MAX: i64 = 50;

/// Rows in quarantine that are looked at, from the last one: it may hold millions.
const SET_ASIDE_MAX: i64 = 1000;

/// Rows in quarantine of a table that are counted. Of more, the ledger's count stands for theirs, which
/// holds those that were removed from quarantine as well.
const COUNTED_MAX: i64 = 100_000;

/// What was read last.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// When it was read; `None`: never.
    pub read_at: Option<Instant>,
    /// Why it could not be read again since, and from when on.
    pub failure: Option<(Instant, String)>,
    /// By table, in order of time.
    pub partitions: Vec<TablePartitions>,
    /// The processes that store, the last active first.
    pub instances: Vec<Instance>,
    /// What all instances and operators have made of all rows, by table.
    pub totals: Vec<TableTotals>,
    /// Of the last rows in quarantine: how many are there for which reason.
    pub set_aside: Vec<SetAside>,
}

/// The newest partitions of a table.
#[derive(Clone, Debug)]
pub struct TablePartitions {
    pub table: Table,
    /// In order of time, the default partition last.
    pub newest: Vec<Part>,
    /// How many older ones there are.
    pub older: usize,
}

/// A partition.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: String,
    /// The first instant inside; `None` if it has no beginning.
    pub from: Option<Micros>,
    /// The first instant after it; `None` if it has no end.
    pub to: Option<Micros>,
    /// Bytes on disk, with indexes and TOAST.
    pub bytes: i64,
    /// Rows at the last VACUUM or ANALYZE.
    pub rows: Option<i64>,
    /// `hot`, `partly`, `sealed`, `default`, or `other` for one that is never sealed.
    pub state: &'static str,
}

/// A spool, and the process that has it open, according to the ledger.
#[derive(Clone, Debug)]
pub struct Instance {
    pub spool: Uuid,
    /// Which of the spools with this id.
    pub lineage: Uuid,
    /// The host and the process; `None` for a ledger row from before they were recorded.
    pub holder: Option<(String, i64)>,
    /// When its last batch was stored.
    pub stored_at: Micros,
    pub stored: i64,
    pub duplicates: i64,
    pub quarantined: i64,
}

/// The ledger's sums for a table.
#[derive(Clone, Debug)]
pub struct TableTotals {
    pub table: String,
    pub stored: i64,
    pub duplicates: i64,
    /// Rows that are in quarantine now.
    pub quarantined: i64,
    /// Rows that were set aside and are gone: dropped, too old, or of a user who was erased; and those
    /// that were accepted as lost.
    pub dropped: i64,
}

/// Rows in quarantine for one reason.
#[derive(Clone, Debug)]
pub struct SetAside {
    pub table: String,
    /// The SQLSTATE, or a code of this service.
    pub code: String,
    pub rows: i64,
    pub last_at: Micros,
    /// The message of the last one.
    pub message: String,
    /// The column or constraint that it names.
    pub place: Option<String>,
}

/// Reads while a page is open, and hands out what was read.
#[derive(Debug, Default)]
pub struct Surveyor {
    found: ArcSwap<Survey>,
    asked: Notify,
    asked_at: Mutex<Option<Instant>>,
}

impl Surveyor {
    /// What was read last. Never waits: what is missing is there at one of the next looks.
    pub fn look(&self) -> Arc<Survey> {
        *self.asked_at() = Some(Instant::now());
        self.asked.notify_one();
        self.found.load_full()
    }

    /// Reads every few seconds while a page is open, until it is dropped.
    pub async fn run(&self, target: &Target) {
        loop {
            self.asked.notified().await;
            let mut session = None;
            while self.is_watched() {
                self.read_and_keep(target, &mut session).await;
                sleep(FRESH).await;
            }
        }
    }

    fn is_watched(&self) -> bool {
        self.asked_at().is_some_and(|at| at.elapsed() < WATCHED_FOR)
    }

    async fn read_and_keep(&self, target: &Target, session: &mut Option<Session>) {
        let result = timeout(READ_LIMIT, read_through(target, session)).await;
        let survey = match result {
            Ok(Ok(survey)) => survey,
            Ok(Err(error)) => {
                *session = None;
                self.failed(format!("{error:#}"))
            }
            Err(_) => {
                if let Some(session) = session.take() {
                    session.give_up();
                }
                let seconds = READ_LIMIT.as_secs();
                self.failed(format!("no answer within {seconds} s"))
            }
        };
        self.found.store(Arc::new(survey));
    }

    /// What was read before, with the failure.
    fn failed(&self, why: String) -> Survey {
        let before = self.found.load_full();
        let since = before.failure.as_ref().map(|(since, _)| *since);
        Survey {
            failure: Some((since.unwrap_or_else(Instant::now), why)),
            ..Survey::clone(&before)
        }
    }

    fn asked_at(&self) -> MutexGuard<'_, Option<Instant>> {
        // Replaced as a whole, so a panic elsewhere leaves nothing half written.
        self.asked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_through(target: &Target, session: &mut Option<Session>) -> Result<Survey> {
    let open = match session {
        Some(open) => open,
        None => session.insert(Session::open(target, Some(READ_LIMIT)).await?),
    };
    read(&mut open.client).await
}

async fn read(client: &mut Client) -> Result<Survey> {
    let mut partitions = Vec::with_capacity(Table::ALL.len());
    for table in Table::ALL {
        let (newest, older) = catalog::newest(client, table, MEASURED_MAX).await?;
        partitions.push(TablePartitions {
            table,
            newest: newest.into_iter().map(Part::of).collect(),
            older,
        });
    }
    let rows = client
        .query(
            "SELECT ledger.instance_id, ledger.lineage, holder.host, holder.pid,
                    max(ledger.updated_at), sum(ledger.stored)::bigint,
                    sum(ledger.duplicates)::bigint, sum(ledger.quarantined)::bigint
               FROM ingest_ledger AS ledger
               LEFT JOIN ingest_holders AS holder USING (instance_id, lineage)
              WHERE ledger.instance_id <> '00000000-0000-0000-0000-000000000000'
              GROUP BY 1, 2, 3, 4
              ORDER BY 5 DESC
              LIMIT $1",
            &[&INSTANCES_MAX],
        )
        .await
        .context("cannot read the ledger")?;
    let instances = rows.iter().map(Instance::of_row).collect();
    let rows = client
        .query(
            "SELECT entered.table_name, stored, duplicates, aside.rows,
                    quarantined + dropped - aside.rows
               FROM (SELECT table_name, sum(stored)::bigint AS stored, sum(duplicates)::bigint AS duplicates,
                            sum(quarantined)::bigint AS quarantined, sum(dropped)::bigint AS dropped
                       FROM ingest_ledger
                      GROUP BY 1) AS entered
              CROSS JOIN LATERAL (
                    SELECT CASE WHEN count(*) < $1 THEN count(*) ELSE greatest(quarantined, count(*)) END AS rows
                      FROM (SELECT FROM ingest_quarantine AS row
                             WHERE row.table_name = entered.table_name LIMIT $1) AS counted) AS aside
              ORDER BY 1",
            &[&COUNTED_MAX],
        )
        .await
        .context("cannot sum the ledger up")?;
    let totals = rows.iter().map(TableTotals::of_row).collect();
    let rows = client
        .query(
            "SELECT table_name, sqlstate, count(*), max(quarantined_at),
                    (array_agg(message ORDER BY id DESC))[1],
                    (array_agg(place ORDER BY id DESC))[1]
               FROM (SELECT id, table_name, sqlstate, quarantined_at, message,
                            coalesce(column_name, constraint_name) AS place
                       FROM ingest_quarantine
                      ORDER BY id DESC
                      LIMIT $1) AS last_ones
              GROUP BY 1, 2
              ORDER BY 3 DESC, 1, 2",
            &[&SET_ASIDE_MAX],
        )
        .await
        .context("cannot read the quarantine")?;
    Ok(Survey {
        read_at: Some(Instant::now()),
        failure: None,
        partitions,
        instances,
        totals,
        set_aside: rows.iter().map(SetAside::of_row).collect(),
    })
}

impl Part {
    fn of(info: PartitionInfo) -> Self {
        let state = match info.index_state {
            _ if info.is_default => "default",
            Some(IndexState::Hot) => "hot",
            Some(IndexState::Partly { .. }) => "partly",
            Some(IndexState::Sealed) => "sealed",
            None => "other",
        };
        Self {
            name: info.name,
            from: info.from_us.map(Micros),
            to: info.to_us.map(Micros),
            bytes: info.bytes,
            rows: info.rows_estimate,
            state,
        }
    }
}

impl Instance {
    fn of_row(row: &Row) -> Self {
        let host: Option<String> = row.get(2);
        Self {
            spool: row.get(0),
            lineage: row.get(1),
            holder: host.map(|host| (host, row.get(3))),
            stored_at: row.get(4),
            stored: row.get(5),
            duplicates: row.get(6),
            quarantined: row.get(7),
        }
    }
}

impl TableTotals {
    fn of_row(row: &Row) -> Self {
        Self {
            table: row.get(0),
            stored: row.get(1),
            duplicates: row.get(2),
            quarantined: row.get(3),
            dropped: row.get(4),
        }
    }
}

impl SetAside {
    fn of_row(row: &Row) -> Self {
        let text = |at: usize| row.get::<_, Option<String>>(at);
        Self {
            table: text(0).unwrap_or_default(),
            code: text(1).unwrap_or_default(),
            rows: row.get(2),
            last_at: row.get::<_, Option<Micros>>(3).unwrap_or(Micros(0)),
            message: text(4).unwrap_or_default(),
            place: text(5),
        }
    }
}
