//! Checks that every accepted row is where the ledger says it is.
//!
//! Reads the ledger, the tables and what is booked as removed in one snapshot, and may run while the
//! service does. Changes nothing but what an operator accepts.

use anyhow::{Context as _, Result, ensure};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, Transaction};
use uuid::Uuid;

use super::ledger::{Holder, LedgerRow, Totals};
use super::removed::{self, Kind, LEDGER, QUARANTINE, Reason};
use crate::event::table::Table;

/// A stream's row in the ledger.
#[derive(Clone, Debug)]
pub struct StreamLedger {
    pub number: u8,
    /// The stream's watermark and counts.
    pub totals: Totals,
    /// The opening that may advance the row; `None` for a row from before openings were recorded.
    pub opening: Option<Uuid>,
    /// The process of that opening.
    pub holder: Option<Holder>,
}

/// The rows of a table: counted, booked as removed, and according to the ledger of all spools and
/// operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableCheck {
    /// An event table, or the quarantine.
    pub table: &'static str,
    /// Rows with an event id, with those of partitions that are being removed. Rows from before this
    /// service was put in front of an existing database have none and do not count.
    pub counted: i64,
    /// Rows that were removed on purpose.
    pub removed: i64,
    /// Rows that the ledger counts as stored, or as quarantined.
    pub stored: i64,
}

/// Rows of a lane that are neither stored nor in its spool; below zero: rows too many.
#[derive(Clone, Copy, Debug)]
pub struct LostRows {
    pub spool: Uuid,
    pub lineage: Uuid,
    pub stream: u8,
    pub table: Table,
    pub rows: i64,
}

/// How often to count again because a partition was dropped in between.
const LOOKS_MAX: u32 = 5;

/// Reads the ledger rows of a spool.
pub async fn read_streams(
    client: &mut Client,
    spool_id: Uuid,
    lineage: Uuid,
) -> Result<Vec<StreamLedger>> {
    let snapshot = snapshot(client).await?;
    streams(&snapshot, spool_id, lineage).await
}

/// Counts the rows of all tables.
pub async fn count_tables(client: &mut Client) -> Result<Vec<TableCheck>> {
    let mut looks = 1;
    loop {
        let counted = count_once(client).await;
        // A partition that was being removed is gone, and its rows are booked by now.
        let is_gone = counted.as_ref().is_err_and(|error| {
            error
                .downcast_ref::<tokio_postgres::Error>()
                .is_some_and(|error| error.code() == Some(&SqlState::UNDEFINED_TABLE))
        });
        if !is_gone || looks == LOOKS_MAX {
            return counted;
        }
        looks += 1;
    }
}

async fn count_once(client: &mut Client) -> Result<Vec<TableCheck>> {
    let snapshot = snapshot(client).await?;
    // Before the first query, which takes the snapshot: no partition is detached from then on
    // that this snapshot does not know as detached.
    let tables = Table::ALL.map(|table| format!("ONLY {table}")).join(", ");
    snapshot
        .batch_execute(&format!("LOCK TABLE {tables} IN ACCESS SHARE MODE"))
        .await
        .context("cannot lock the event tables for reading")?;
    let mut checks = Vec::new();
    for table in Table::ALL {
        checks.push(check(&snapshot, table).await?);
    }
    let row = snapshot
        .query_one(
            "SELECT (SELECT count(*) FROM ingest_quarantine),
                    (SELECT coalesce(sum(quarantined), 0)::bigint FROM ingest_ledger)",
            &[],
        )
        .await
        .context("cannot count the quarantine")?;
    checks.push(TableCheck {
        table: QUARANTINE,
        counted: row.get(0),
        removed: total(&snapshot, QUARANTINE).await?,
        stored: row.get(1),
    });
    Ok(checks)
}

/// Books all differences, so that the accounts hold from now on.
///
/// # Errors
///
/// When Postgres refuses, or a lane has no ledger row. Nothing is booked then.
pub async fn accept(
    client: &mut Client,
    tables: &[TableCheck],
    lost: &[LostRows],
    words: &str,
) -> Result<()> {
    let transaction = client
        .transaction()
        .await
        .context("cannot begin a transaction")?;
    let book = async |table: &str, rows: i64| {
        let kind = Kind::Accepted;
        let tenant = None;
        let reason = Reason {
            table,
            kind,
            words,
            tenant,
        };
        let booked = removed::book(&transaction, &reason, rows).await;
        booked.map(drop).context("cannot book what is accepted")
    };
    for check in tables.iter().filter(|check| check.missing() != 0) {
        book(check.table, check.missing()).await?;
    }
    for lane in lost {
        // Rows too many are some that other copies of the spool have taken.
        let column = if lane.rows < 0 {
            "inherited"
        } else {
            "dropped"
        };
        let updated = transaction
            .execute(
                &format!(
                    "UPDATE ingest_ledger SET {column} = {column} + $4
                      WHERE instance_id = $1 AND lineage = $2 AND stream = $3"
                ),
                &[
                    &lane.spool,
                    &lane.lineage,
                    &i16::from(lane.stream),
                    &lane.rows,
                ],
            )
            .await
            .context("cannot enter what is accepted into the ledger")?;
        ensure!(
            updated == 1,
            "a lane of {} has no row in the ledger, so what it has lost cannot be booked: start the service on this spool once",
            lane.table
        );
        book(LEDGER, lane.rows).await?;
    }
    transaction.commit().await.context("cannot commit")
}

impl TableCheck {
    /// Rows that are gone and not booked; below zero: rows that are there and were not stored.
    #[must_use]
    pub fn missing(&self) -> i64 {
        self.stored - self.removed - self.counted
    }
}

async fn snapshot(client: &mut Client) -> Result<Transaction<'_>> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .context("cannot begin a transaction")?;
    // A large table takes minutes to count.
    snapshot
        .batch_execute("SET LOCAL statement_timeout = 0")
        .await
        .context("cannot begin a transaction")?;
    Ok(snapshot)
}

async fn streams(
    snapshot: &Transaction<'_>,
    spool_id: Uuid,
    lineage: Uuid,
) -> Result<Vec<StreamLedger>> {
    let rows = super::ledger::read_all(snapshot, spool_id, lineage)
        .await
        .context("cannot read the ledger")?;
    let stream = |(number, row): (i16, LedgerRow)| StreamLedger {
        number: u8::try_from(number).unwrap_or(u8::MAX),
        totals: row.totals,
        opening: row.mark.opening,
        holder: row.holder,
    };
    Ok(rows.into_iter().map(stream).collect())
}

async fn check(snapshot: &Transaction<'_>, table: Table) -> Result<TableCheck> {
    let failed = || format!("cannot count the rows of {table}");
    let row = snapshot
        .query_one(
            &format!(
                "SELECT (SELECT count(event_id) FROM {table}),
                        (SELECT coalesce(sum(stored), 0)::bigint
                           FROM ingest_ledger WHERE table_name = $1)"
            ),
            &[&table.as_str()],
        )
        .await
        .with_context(failed)?;
    let (mut counted, stored): (i64, i64) = (row.get(0), row.get(1));
    let open = removed::open(snapshot, table.as_str())
        .await
        .with_context(failed)?;
    for entry in open {
        // Its rows are not booked yet, and the table above does not show them any more.
        if !entry.is_shown && entry.name.is_some() {
            let count = format!("SELECT count(event_id) FROM {}", entry.relation);
            let row = snapshot.query_one(&count, &[]).await.with_context(failed)?;
            counted += row.get::<_, i64>(0);
        }
    }
    Ok(TableCheck {
        table: table.as_str(),
        counted,
        removed: total(snapshot, table.as_str()).await?,
        stored,
    })
}

async fn total(snapshot: &Transaction<'_>, table: &str) -> Result<i64> {
    removed::total(snapshot, table)
        .await
        .context("cannot read what was removed")
}
