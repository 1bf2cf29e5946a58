//! Stores rows from quarantine, as an operator asks or as their partitions come.

use anyhow::Result;
use bytes::Bytes;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::{Selection, enter, ids, mark, table_named};
use crate::accounts::erasure::quarantined::key_in;
use crate::accounts::removed::{self, Kind, QUARANTINE, Reason};
use crate::event::result::{LEFT_OUT, LEFT_OUT_MESSAGE, TOO_OLD, TOO_OLD_MESSAGE};
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions;
use crate::partitions::catalog::read_coverage;
use crate::partitions::coverage::Coverage;
use crate::partitions::create::ensure;
use crate::partitions::kept::read_kept_from;
use crate::partitions::layout::read_interval;
use crate::partitions::range::Interval;

/// The result of a retry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Rows that are stored now.
    pub stored: u64,
    /// Rows that were stored already.
    pub duplicates: u64,
    /// Rows of users who were erased: removed.
    pub erased: u64,
    /// Rows that Postgres still refuses, and why.
    pub refused: Vec<(i64, String)>,
}

/// Retries rows one by one, so that a bad row does not stop the others. Partitions are created for
/// `interval`, or else as the table's partitions go on. `progress` is told before each row how many
/// were tried, and of how many.
pub async fn retry(
    client: &mut Client,
    selection: &Selection,
    interval: Option<Interval>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Retried> {
    let mut retried = Retried::default();
    let mut coverage = <[Coverage; Table::ALL.len()]>::default();
    let ids = ids(client, selection).await?;
    for (done, &id) in ids.iter().enumerate() {
        progress(done, ids.len());
        match retry_one(client, id, interval, &mut coverage).await {
            Ok(Fate::Stored) => retried.stored += 1,
            Ok(Fate::Duplicate) => retried.duplicates += 1,
            Ok(Fate::Erased) => retried.erased += 1,
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

/// The result of retrying one row.
enum Fate {
    Stored,
    /// It was already stored.
    Duplicate,
    /// Its user was erased; it was removed.
    Erased,
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
    interval: Option<Interval>,
    coverage: &mut [Coverage; Table::ALL.len()],
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
        let interval = match interval {
            Some(interval) => interval,
            None => read_interval(client, table).await?,
        };
        let range = interval.range_of(found.get(1));
        if range.to_us <= read_kept_from(client, table).await? {
            return Ok(Fate::Refused(format!("{TOO_OLD_MESSAGE} ({TOO_OLD})")));
        }
        match ensure(client, table, range, "for a row in quarantine").await {
            Ok(_) => *coverage = read_coverage(client, table).await?,
            Err(
                busy @ (partitions::error::Error::Busy { .. }
                | partitions::error::Error::Leaving { .. }),
            ) => {
                return Ok(Fate::Refused(busy.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }

    let transaction = client.transaction().await?;
    // Before the list of erased users is read, as a batch does: an erasure waits for this row, or
    // this row finds it on the list.
    transaction
        .batch_execute("LOCK TABLE ingest_ledger IN ROW EXCLUSIVE MODE")
        .await?;
    let taken = transaction
        .query_opt(
            "DELETE FROM ingest_quarantine WHERE id = $1 RETURNING row::text, row_bytes",
            &[&id],
        )
        .await?;
    let Some(taken) = taken else {
        return Ok(Fate::Gone);
    };
    if is_erased(&transaction, &key, taken.get(0), taken.get(1)).await? {
        let reason = Reason {
            table: QUARANTINE,
            kind: Kind::Erasure,
            words: "of a user who was erased, when it was tried again",
            tenant: Some(key.0),
        };
        removed::book(&transaction, &reason, 1).await?;
        transaction.commit().await?;
        return Ok(Fate::Erased);
    }
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
    let counts = if stored { [1, 0] } else { [0, 1] };
    enter(&transaction, table, counts).await?;
    if stored {
        mark(&transaction, table, &key).await?;
    }
    transaction.commit().await?;
    Ok(if stored {
        Fate::Stored
    } else {
        Fate::Duplicate
    })
}

/// Whether the row's user was erased, with events of its time.
async fn is_erased(
    transaction: &Transaction<'_>,
    (tenant, occurred_at, _): &RowKey,
    json: Option<&str>,
    bytes: Option<Vec<u8>>,
) -> Result<bool> {
    let row = transaction
        .query_one(
            "SELECT EXISTS (SELECT FROM ingest_erased_subjects
                             WHERE tenant_id = $1 AND before > $2
                               AND (user_key = $3
                                    OR '\\x' || encode(user_key, 'hex') = $4::text::jsonb ->> 'user_key'))",
            &[tenant, occurred_at, &bytes.and_then(key_in), &json],
        )
        .await?;
    Ok(row.get(0))
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
