//! What an operator does with quarantined rows.
//!
//! Invariant: a row leaves quarantine in the same transaction that stores it or books it as removed.

pub mod retry;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::changes::{self, ChangedDays};
use super::ledger::ADD;
use super::removed::{self, Kind, QUARANTINE, Reason};
use crate::event::row::rows::Rows;
use crate::event::row_json::row_to_json;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions::range::Range;

use crate::event::result::PARTITION_BUDGET;

/// The spool id of the ledger rows that count what operators do, with one stream for each table.
const OPERATOR: Uuid = Uuid::nil();

/// The rows that an operator selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Rows with these ids.
    Ids(Vec<i64>),
    /// All rows with this SQLSTATE.
    Code(String),
    All,
}

/// A row in quarantine.
#[derive(Clone, Debug)]
pub struct Quarantined {
    /// Its id in the quarantine.
    pub id: i64,
    /// The table of the row.
    pub table: String,
    /// The tenant's external id, or its UUID if it is unknown.
    pub tenant: String,
    pub event_id: Uuid,
    /// When it was quarantined.
    pub at: Micros,
    /// The SQLSTATE, or a code of this service.
    pub sqlstate: String,
    /// The message of the error.
    pub message: String,
    /// The column or constraint, if the error named one.
    pub place: Option<String>,
    /// The row as JSON text, or its bytes in hexadecimal if they cannot be read as a row.
    pub row: String,
}

const SELECT: &str = "
    SELECT q.id, q.table_name, coalesce(t.external_id, q.tenant_id::text), q.event_id,
           q.quarantined_at, q.sqlstate, q.message, coalesce(q.column_name, q.constraint_name),
           q.row::text, q.row_bytes
      FROM ingest_quarantine AS q
      LEFT JOIN tenants AS t ON t.id = q.tenant_id";

/// The rows that were quarantined last.
pub async fn list(client: &Client, limit: i64) -> Result<Vec<Quarantined>> {
    let rows = client
        .query(&format!("{SELECT} ORDER BY q.id DESC LIMIT $1"), &[&limit])
        .await
        .context("cannot read the quarantine")?;
    Ok(rows.iter().map(entry).collect())
}

/// One row in quarantine.
pub async fn show(client: &Client, id: i64) -> Result<Quarantined> {
    let row = client
        .query_opt(&format!("{SELECT} WHERE q.id = $1"), &[&id])
        .await
        .context("cannot read the quarantine")?;
    match row {
        Some(row) => Ok(entry(&row)),
        None => {
            bail!("there is no row {id} in quarantine; `quarantine list` shows which there are")
        }
    }
}

/// One instant for each table and day with rows that wait for a partition.
pub(crate) async fn waiting_for_partition(client: &Client) -> Result<Vec<(Table, Micros)>> {
    let rows = client
        .query(
            "SELECT table_name, (extract(epoch FROM min(occurred_at)) * 1000000)::bigint
               FROM ingest_quarantine
              WHERE sqlstate = $1
              GROUP BY table_name, date_trunc('day', occurred_at)
              ORDER BY 2",
            &[&PARTITION_BUDGET],
        )
        .await
        .context("cannot read the quarantine")?;
    rows.iter()
        .map(|row| Ok((table_named(row.get(0))?, Micros(row.get(1)))))
        .collect()
}

/// The ids of rows in one range that wait for its partition.
pub(crate) async fn waiting_in(client: &Client, table: Table, range: Range) -> Result<Vec<i64>> {
    let rows = client
        .query(
            "SELECT id FROM ingest_quarantine
              WHERE sqlstate = $1 AND table_name = $2
                AND (extract(epoch FROM occurred_at) * 1000000)::bigint >= $3
                AND (extract(epoch FROM occurred_at) * 1000000)::bigint < $4",
            &[
                &PARTITION_BUDGET,
                &table.as_str(),
                &range.from_us,
                &range.to_us,
            ],
        )
        .await
        .context("cannot read the quarantine")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Discards rows, all or none, and books them with the reason `words`. Returns how many.
pub async fn discard(client: &mut Client, selection: &Selection, words: &str) -> Result<i64> {
    let ids = ids(client, selection).await?;
    let transaction = client
        .transaction()
        .await
        .context("cannot begin a transaction")?;
    let removing = async {
        // Quarantine may hold millions of rows.
        transaction
            .batch_execute("SET LOCAL statement_timeout = 0")
            .await?;
        let sql = "DELETE FROM ingest_quarantine WHERE id = ANY ($1)";
        let gone = transaction.execute(sql, &[&ids]).await?;
        let gone = i64::try_from(gone).unwrap_or(i64::MAX);
        if gone > 0 {
            let reason = Reason {
                table: QUARANTINE,
                kind: Kind::Operator,
                words,
                tenant: None,
            };
            removed::book(&transaction, &reason, gone).await?;
        }
        Ok::<_, tokio_postgres::Error>(gone)
    };
    let gone = removing
        .await
        .context("cannot remove rows from quarantine; nothing was removed")?;
    transaction.commit().await.context("cannot commit")?;
    Ok(gone)
}

async fn ids(client: &Client, selection: &Selection) -> Result<Vec<i64>> {
    let all = "SELECT id FROM ingest_quarantine";
    let rows = match selection {
        Selection::Ids(ids) => {
            client
                .query(&format!("{all} WHERE id = ANY ($1) ORDER BY id"), &[ids])
                .await
        }
        Selection::Code(code) => {
            client
                .query(&format!("{all} WHERE sqlstate = $1 ORDER BY id"), &[code])
                .await
        }
        Selection::All => client.query(&format!("{all} ORDER BY id"), &[]).await,
    };
    let ids: Vec<i64> = rows
        .context("cannot read the quarantine")?
        .iter()
        .map(|row| row.get(0))
        .collect();
    if let Selection::Ids(wanted) = selection
        && let Some(missing) = wanted.iter().find(|id| !ids.contains(id))
    {
        bail!("there is no row {missing} in quarantine; nothing was done");
    }
    Ok(ids)
}

/// Moves a row's count in the ledger from quarantined to stored or duplicate.
async fn enter(
    transaction: &Transaction<'_>,
    table: Table,
    [stored, duplicates]: [i64; 2],
) -> Result<()> {
    let stream = table as i16;
    let removed = -(stored + duplicates);
    transaction
        .execute(
            &format!(
                "INSERT INTO ingest_ledger AS entry
                     (instance_id, stream, table_name, settled, stored, duplicates, quarantined)
                 VALUES ($1, $2, $3, 0, $4, $5, $6) {ADD}"
            ),
            &[
                &OPERATOR,
                &stream,
                &table.as_str(),
                &stored,
                &duplicates,
                &removed,
            ],
        )
        .await
        .context("cannot enter it into the ledger")?;
    Ok(())
}

/// Marks the day of a row that is stored now.
async fn mark(
    transaction: &Transaction<'_>,
    table: Table,
    (tenant, at, _): &(Uuid, Micros, Uuid),
) -> Result<()> {
    let changed = ChangedDays::of(std::iter::once((*tenant, *at)));
    let place = ["$3", "$4", "'00000000-0000-0000-0000-000000000000'", "$5"];
    let mark = changes::mark(["$1", "$2"], place, "(VALUES (true)) AS always");
    let stream = table as i16;
    let parameters: [&(dyn ToSql + Sync); 5] = [
        &changed.tenants,
        &changed.days,
        &table.as_str(),
        &OPERATOR,
        &stream,
    ];
    transaction
        .execute(&mark, &parameters)
        .await
        .context("cannot mark its day as changed")?;
    Ok(())
}

fn table_named(name: &str) -> Result<Table> {
    Table::ALL
        .into_iter()
        .find(|table| table.as_str() == name)
        .with_context(|| format!("a row in quarantine is for '{name}', which is no event table"))
}

fn entry(row: &tokio_postgres::Row) -> Quarantined {
    let json: Option<String> = row.get(8);
    Quarantined {
        id: row.get(0),
        table: row.get(1),
        tenant: row.get(2),
        event_id: row.get(3),
        at: row.get(4),
        sqlstate: row.get(5),
        message: row.get(6),
        place: row.get(7),
        row: json.unwrap_or_else(|| json_of(row.get(9))),
    }
}

/// A row that is kept as bytes, as JSON text.
fn json_of(bytes: Option<Vec<u8>>) -> String {
    let bytes = bytes.unwrap_or_default();
    let rows = Rows::parse(Bytes::copy_from_slice(&bytes));
    let json = rows.as_ref().ok().and_then(|rows| {
        let row = rows.iter().next()?;
        row_to_json(rows.table(), row)
    });
    json.unwrap_or_else(|| format!("{{\"row_bytes\": \"\\\\x{}\"}}", hex::encode(&bytes)))
}
