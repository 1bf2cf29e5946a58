//! Checks that every accepted row is where the ledger says it is.
//!
//! Reads the ledger and the tables in one snapshot, and may run while the service does. Changes
//! nothing.

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, IsolationLevel, Transaction};
use uuid::Uuid;

use crate::event::table::Table;

use super::ledger::{Holder, LedgerRow, Totals};

/// The ledger of a spool, and the counts that it is checked against.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The streams of the spool.
    pub streams: Vec<StreamLedger>,
    /// The counts of both tables; empty unless they were asked for.
    pub tables: Vec<TableCheck>,
    /// The rows in quarantine, and the ledger's count of them.
    pub quarantine: Option<(i64, i64)>,
}

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

/// A table's rows: counted, and according to the ledger of all spools and operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableCheck {
    pub table: Table,
    /// Rows with an event id. Rows from before this service was put in front of an existing
    /// database have none and do not count.
    pub counted: i64,
    /// Rows that the ledger counts as stored.
    pub stored: i64,
}

/// Reads the ledger, and counts the tables' rows if `count_tables`.
pub async fn read(
    client: &mut Client,
    spool_id: Uuid,
    lineage: Uuid,
    count_tables: bool,
) -> Result<Ledger> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .context("cannot begin a transaction")?;
    let mut ledger = Ledger {
        streams: streams(&snapshot, spool_id, lineage).await?,
        ..Ledger::default()
    };
    if count_tables {
        for table in Table::ALL {
            ledger.tables.push(check(&snapshot, table).await?);
        }
        let row = snapshot
            .query_one(
                "SELECT (SELECT count(*) FROM ingest_quarantine),
                        (SELECT coalesce(sum(quarantined), 0)::bigint FROM ingest_ledger)",
                &[],
            )
            .await
            .context("cannot count the quarantine")?;
        ledger.quarantine = Some((row.get(0), row.get(1)));
    }
    Ok(ledger)
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
        .with_context(|| format!("cannot count the rows of {table}"))?;
    Ok(TableCheck {
        table,
        counted: row.get(0),
        stored: row.get(1),
    })
}
