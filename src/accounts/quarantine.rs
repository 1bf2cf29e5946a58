//! What an operator does with quarantined rows.
//!
//! Invariant: a row leaves quarantine in the same transaction that stores it or counts it as
//! dropped in the ledger.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::event::row::rows::Rows;
use crate::event::row_json::row_to_json;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions;
use crate::partitions::catalog::read_coverage;
use crate::partitions::coverage::Coverage;
use crate::partitions::create::ensure;
use crate::partitions::range::{Interval, Range};

use crate::event::result::{LEFT_OUT, LEFT_OUT_MESSAGE, PARTITION_BUDGET};

/// The spool id of the ledger rows that count what operators do, with one stream for each table.
const OPERATOR: Uuid = Uuid::nil();

/// The rows that an operator selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Rows with these ids.
    Ids(Vec<i64>),
    /// All rows with this SQLSTATE.
    Code(String),
    /// All rows.
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
    /// The event's id.
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

/// The result of a retry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Rows that are stored now.
    pub stored: u64,
    /// Rows that were stored already.
    pub duplicates: u64,
    /// Rows that Postgres still refuses, and why.
    pub refused: Vec<(i64, String)>,
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

/// Retries rows one by one, so that a bad row does not stop the others.
pub async fn retry(
    client: &mut Client,
    selection: &Selection,
    interval: Interval,
) -> Result<Retried> {
    let mut retried = Retried::default();
    let mut coverage = <[Coverage; 2]>::default();
    for id in ids(client, selection).await? {
        match retry_one(client, id, interval, &mut coverage).await {
            Ok(Fate::Stored) => retried.stored += 1,
            Ok(Fate::Duplicate) => retried.duplicates += 1,
            // It was retried or discarded elsewhere.
            Ok(Fate::Gone) => {}
            Ok(Fate::Refused(words)) => retried.refused.push((id, words)),
            Err(error) => match error.downcast_ref::<tokio_postgres::Error>() {
                Some(refusal) if refusal.as_db_error().is_some() => {
                    let words = crate::postgres::error::describe(refusal);
                    retried.refused.push((id, words));
                }
                _ => return Err(error.context(format!("cannot retry row {id}"))),
            },
        }
    }
    Ok(retried)
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

/// Discards rows. Returns how many.
pub async fn discard(client: &mut Client, selection: &Selection) -> Result<u64> {
    let mut dropped = 0;
    for id in ids(client, selection).await? {
        let transaction = client
            .transaction()
            .await
            .context("cannot begin a transaction")?;
        let removed = transaction
            .query_opt(
                "DELETE FROM ingest_quarantine WHERE id = $1 RETURNING table_name",
                &[&id],
            )
            .await
            .context("cannot remove a row from quarantine")?;
        if let Some(row) = removed {
            let table = table_named(row.get(0))?;
            enter(&transaction, table, [0, 0, 1]).await?;
            transaction.commit().await.context("cannot commit")?;
            dropped += 1;
        }
    }
    Ok(dropped)
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

/// The result of retrying one row.
enum Fate {
    Stored,
    /// It was already stored.
    Duplicate,
    /// It is no longer in quarantine.
    Gone,
    /// It stays in quarantine.
    Refused(String),
}

/// A row's key, as parameters.
type RowKey = (Uuid, Micros, Uuid);

async fn retry_one(
    client: &mut Client,
    id: i64,
    interval: Interval,
    coverage: &mut [Coverage; 2],
) -> Result<Fate> {
    let found = client
        .query_opt(
            "SELECT table_name, (extract(epoch FROM occurred_at) * 1000000)::bigint,
                    tenant_id, occurred_at, event_id
               FROM ingest_quarantine WHERE id = $1",
            &[&id],
        )
        .await?;
    let Some(found) = found else {
        return Ok(Fate::Gone);
    };
    let table = table_named(found.get(0))?;
    let key: RowKey = (found.get(2), found.get(3), found.get(4));
    // `ensure` takes a lock even if the partition exists, so look first.
    let coverage = &mut coverage[table as usize];
    if !coverage.covers(found.get(1)) {
        *coverage = read_coverage(client, table).await?;
    }
    if !coverage.covers(found.get(1)) {
        // An operator asked for this row, so the partition does not count against the hourly limit.
        let range = interval.range_of(found.get(1));
        match ensure(client, table, range, "for a row in quarantine").await {
            Ok(_) => *coverage = read_coverage(client, table).await?,
            Err(busy @ partitions::error::Error::Busy { .. }) => {
                return Ok(Fate::Refused(busy.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }

    let transaction = client.transaction().await?;
    let taken = transaction
        .query_opt(
            "DELETE FROM ingest_quarantine WHERE id = $1 RETURNING row::text, row_bytes",
            &[&id],
        )
        .await?;
    let Some(taken) = taken else {
        return Ok(Fate::Gone);
    };
    // A deferred constraint fails at COMMIT; then the row also stays in quarantine.
    let stored = match (taken.get(0), taken.get(1)) {
        (Some(json), _) => insert(&transaction, table, json).await?,
        (None, Some(bytes)) => match copy_in(&transaction, table, &key, bytes).await? {
            Some(stored) => stored,
            None => {
                let words = "its bytes are no row that this version reads";
                return Ok(Fate::Refused(words.to_owned()));
            }
        },
        (None, None) => return Ok(Fate::Refused("it has neither JSON nor bytes".to_owned())),
    };
    if !stored && !is_stored(&transaction, table, &key).await? {
        let words = format!("{LEFT_OUT_MESSAGE} ({LEFT_OUT})");
        return Ok(Fate::Refused(words));
    }
    let counts = if stored { [1, 0, 0] } else { [0, 1, 0] };
    enter(&transaction, table, counts).await?;
    transaction.commit().await?;
    Ok(if stored {
        Fate::Stored
    } else {
        Fate::Duplicate
    })
}

/// Inserts a row that is kept as JSON. `false` if nothing was inserted.
async fn insert(transaction: &Transaction<'_>, table: Table, json: &str) -> Result<bool> {
    let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
    let columns = columns.join(", ");
    // Only for a conflict on the key: a row that violates another unique index is no duplicate.
    let inserted = transaction
        .execute(
            &format!(
                "INSERT INTO {table} ({columns})
                 SELECT {columns} FROM jsonb_populate_record(NULL::{table}, $1::text::jsonb)
                     ON CONFLICT (tenant_id, occurred_at, event_id) DO NOTHING"
            ),
            &[&json],
        )
        .await?;
    Ok(inserted > 0)
}

/// Copies a row that is kept as bytes. `false` if nothing was stored, `None` if the bytes are no
/// row.
async fn copy_in(
    transaction: &Transaction<'_>,
    table: Table,
    key: &RowKey,
    bytes: Vec<u8>,
) -> Result<Option<bool>> {
    let rows = match Rows::parse(Bytes::from(bytes)) {
        Ok(rows) if rows.table() == table && rows.len() == 1 => rows,
        _ => return Ok(None),
    };
    if is_stored(transaction, table, key).await? {
        return Ok(Some(false));
    }
    let sink = transaction
        .copy_in(&crate::postgres::copy::statement(table))
        .await?;
    Ok(Some(
        crate::postgres::copy::send(sink, rows.iter()).await? > 0,
    ))
}

async fn is_stored(transaction: &Transaction<'_>, table: Table, key: &RowKey) -> Result<bool> {
    let (tenant, occurred_at, event_id) = key;
    let row = transaction
        .query_one(
            &format!(
                "SELECT EXISTS (SELECT FROM {table}
                  WHERE tenant_id = $1 AND occurred_at = $2 AND event_id = $3)"
            ),
            &[tenant, occurred_at, event_id],
        )
        .await?;
    Ok(row.get(0))
}

/// Moves a row's count in the ledger from quarantined to stored, duplicate or dropped.
async fn enter(
    transaction: &Transaction<'_>,
    table: Table,
    [stored, duplicates, dropped]: [i64; 3],
) -> Result<()> {
    let stream = table as i16;
    let removed = -(stored + duplicates + dropped);
    transaction
        .execute(
            "INSERT INTO ingest_ledger AS operator
                 (instance_id, stream, table_name, settled, stored, duplicates, quarantined, dropped)
             VALUES ($1, $2, $3, 0, $4, $5, $6, $7)
                 ON CONFLICT (instance_id, lineage, stream) DO UPDATE
                SET stored = operator.stored + excluded.stored,
                    duplicates = operator.duplicates + excluded.duplicates,
                    quarantined = operator.quarantined + excluded.quarantined,
                    dropped = operator.dropped + excluded.dropped,
                    updated_at = now()",
            &[&OPERATOR, &stream, &table.as_str(), &stored, &duplicates, &removed, &dropped],
        )
        .await
        .context("cannot enter it into the ledger")?;
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
