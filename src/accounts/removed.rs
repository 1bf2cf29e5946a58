//! `ingest_removed_rows`: what was removed on purpose, why and by which role.
//!
//! Invariant: an entry gets its count in the transaction that removes the rows. The rows of a
//! table and those that were removed from it are those that were stored; see docs/decisions/0025.

use tokio_postgres::{Error, GenericClient};
use uuid::Uuid;

use crate::event::time::Micros;
use crate::partitions::literal::timestamp;
use crate::partitions::range::Range;

/// Why rows were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They were older than what is kept.
    Retention,
    /// They were a user's that was erased.
    Erasure,
    /// An operator removed them.
    Operator,
    /// An operator accepted that they are gone.
    Accepted,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Kind::Retention => "retention",
            Kind::Erasure => "erasure",
            Kind::Operator => "operator",
            Kind::Accepted => "accepted",
        }
    }
}

/// The table of rows in quarantine, as an entry names it.
pub(crate) const QUARANTINE: &str = "ingest_quarantine";

/// Rows that a spool has lost, as an entry names their table.
pub(crate) const LEDGER: &str = "ingest_ledger";

/// What an entry says in addition to its count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason<'r> {
    pub(crate) table: &'r str,
    pub(crate) kind: Kind,
    pub(crate) words: &'r str,
    pub(crate) tenant: Option<Uuid>,
}

/// Books rows. Returns the entry's id, for [`add`].
pub(crate) async fn book(
    client: &impl GenericClient,
    reason: &Reason<'_>,
    rows: i64,
) -> Result<i64, Error> {
    let Reason {
        table,
        kind,
        words,
        tenant,
    } = reason;
    let row = client
        .query_one(
            "INSERT INTO ingest_removed_rows (table_name, kind, reason, tenant_id, row_count)
             VALUES ($1, $2, $3, $4, $5) RETURNING id",
            &[table, &kind.as_str(), words, tenant, &rows],
        )
        .await?;
    Ok(row.get(0))
}

/// Adds rows to an entry of the same run, or makes it. What is removed in steps is one entry.
pub(crate) async fn add(
    client: &impl GenericClient,
    entry: &mut Option<i64>,
    reason: &Reason<'_>,
    rows: i64,
) -> Result<(), Error> {
    match entry {
        None => *entry = Some(book(client, reason, rows).await?),
        Some(id) => {
            client
                .execute(
                    "UPDATE ingest_removed_rows
                        SET row_count = row_count + $2, removed_at = now() WHERE id = $1",
                    &[id, &rows],
                )
                .await?;
        }
    }
    Ok(())
}

/// Rows that are booked as removed from a table.
pub(crate) async fn total(client: &impl GenericClient, table: &str) -> Result<i64, Error> {
    let row = client
        .query_one(
            "SELECT coalesce(sum(row_count), 0)::bigint FROM ingest_removed_rows WHERE table_name = $1",
            &[&table],
        )
        .await?;
    Ok(row.get(0))
}

/// A partition that is being removed, and is not counted yet.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) id: i64,
    /// The partition, with its schema, as statements name it.
    pub(crate) relation: String,
    pub(crate) oid: u32,
    /// Its name without the schema; `None`: it is gone.
    pub(crate) name: Option<String>,
    pub(crate) range: Range,
    /// Whether its parent shows its rows to who asks now.
    pub(crate) is_shown: bool,
    /// Whether it is attached, or its detaching has not ended.
    pub(crate) is_attached: bool,
}

/// The entries of a table without a count.
pub(crate) async fn open(client: &impl GenericClient, table: &str) -> Result<Vec<Open>, Error> {
    let rows = client
        .query(
            "SELECT e.id, e.relation, e.relation_oid, c.relname::text, e.range_from, e.range_to,
                    i.inhrelid IS NOT NULL AND NOT i.inhdetachpending, i.inhrelid IS NOT NULL
               FROM ingest_removed_rows AS e
               LEFT JOIN pg_class AS c
                      ON c.oid = to_regclass(e.relation) AND c.oid = e.relation_oid
               LEFT JOIN pg_inherits AS i
                      ON i.inhrelid = c.oid AND i.inhparent = to_regclass(e.table_name)
              WHERE e.row_count IS NULL AND e.table_name = $1 ORDER BY e.id",
            &[&table],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Open {
            id: row.get(0),
            relation: row.get(1),
            oid: row.get(2),
            name: row.get(3),
            range: Range {
                from_us: row.get::<_, Option<Micros>>(4).map_or(i64::MIN, |at| at.0),
                to_us: row.get::<_, Option<Micros>>(5).map_or(i64::MAX, |at| at.0),
            },
            is_shown: row.get(6),
            is_attached: row.get(7),
        })
        .collect())
}

/// Announces that a partition is removed, before it is. Returns the entry's id.
pub(crate) async fn announce(
    client: &impl GenericClient,
    reason: &Reason<'_>,
    relation: &str,
    range: Range,
) -> Result<i64, Error> {
    let row = client
        .query_one(
            "INSERT INTO ingest_removed_rows
                 (table_name, kind, reason, relation, relation_oid, range_from, range_to)
             VALUES ($1, $2, $3, $4, to_regclass($4), nullif($5::text::timestamptz, '-infinity'),
                     $6::text::timestamptz)
             RETURNING id",
            &[
                &reason.table,
                &reason.kind.as_str(),
                &reason.words,
                &relation,
                &timestamp(range.from_us),
                &timestamp(range.to_us),
            ],
        )
        .await?;
    Ok(row.get(0))
}

/// Gives an announced entry its count, in the transaction that removes its rows.
pub(crate) async fn settle(client: &impl GenericClient, id: i64, rows: i64) -> Result<(), Error> {
    client
        .execute(
            "UPDATE ingest_removed_rows SET row_count = $2, removed_at = now() WHERE id = $1",
            &[&id, &rows],
        )
        .await?;
    Ok(())
}

/// Takes an announcement back: nothing was removed, or another process did it.
pub(crate) async fn withdraw(client: &impl GenericClient, id: i64) -> Result<(), Error> {
    client
        .execute(
            "DELETE FROM ingest_removed_rows WHERE id = $1 AND row_count IS NULL",
            &[&id],
        )
        .await?;
    Ok(())
}
