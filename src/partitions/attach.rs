//! The steps that make a partition: a table is created, then attached, under the locks that
//! this needs.
//!
//! Invariant: the lock on the parent is never stronger than SHARE UPDATE EXCLUSIVE, which does not
//! conflict with SELECT or COPY. `CREATE TABLE … PARTITION OF` would take ACCESS EXCLUSIVE, and
//! every statement would queue behind the longest reader. The one exception is a partition that gets
//! rows of a DEFAULT partition: it is attached under ACCESS EXCLUSIVE, asked for with a short timeout.

use tokio_postgres::Transaction;

use super::catalog::{Parent, Partition};
use super::defaults::inside;
use super::error::Error;
use super::literal::timestamp;
use super::range::Range;
use crate::event::table::Table;
use crate::postgres::ident::qualified;
use crate::postgres::patience::LOCK_WAIT_MS;

/// The longest wait for another process of this service that is making a partition. It holds no
/// lock that other statements would queue behind.
pub(super) const TURN_WAIT_MS: u32 = 3_000;

/// High half of the advisory lock's key ("part" in ASCII). The low half is the parent's oid, so
/// each table has a separate lock.
const LOCK_CLASS: i64 = (u32::from_be_bytes(*b"part") as i64) << 32;

/// The CHECK constraint of a table that is not attached yet.
pub(crate) const RANGE_CHECK: &str = "ingest_range";

/// Keeps other sessions from changing the parent's partitions.
///
/// Other processes of this service wait for the advisory lock, in order and without a relation lock
/// that other statements would queue behind. Operators and other tools are kept out by the relation
/// lock, the one that ATTACH takes anyway.
pub(crate) async fn lock_parent(tx: &Transaction<'_>, parent: &Parent) -> Result<(), Error> {
    let failed = |source| Error::Postgres {
        doing: "lock the partitions",
        table: parent.table,
        source,
    };
    tx.batch_execute(&format!("SET LOCAL lock_timeout = {TURN_WAIT_MS}"))
        .await
        .map_err(failed)?;
    tx.execute(
        "SELECT pg_advisory_xact_lock($1)",
        &[&(LOCK_CLASS | i64::from(parent.oid))],
    )
    .await
    .map_err(failed)?;
    let above = qualified(&parent.schema, parent.table.as_str());
    for sql in [
        format!("SET LOCAL lock_timeout = {LOCK_WAIT_MS}"),
        format!("LOCK TABLE ONLY {above} IN SHARE UPDATE EXCLUSIVE MODE"),
    ] {
        tx.batch_execute(&sql).await.map_err(failed)?;
    }
    Ok(())
}

/// Creates the table of a partition that is not attached yet.
pub(crate) async fn create_table(
    tx: &Transaction<'_>,
    parent: &Parent,
    name: &str,
    range: Range,
) -> Result<(), Error> {
    // LIKE copies the indexes, so ATTACH finds them and builds none. The CHECK constraint lets it
    // skip the scan of the rows. Identity columns are not copied: a partition takes them from the
    // parent when it is attached.
    tx.batch_execute(&format!(
        "CREATE TABLE {} (
             LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED
                 INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION,
             CONSTRAINT {RANGE_CHECK} CHECK ({}))",
        qualified(&parent.schema, name),
        qualified(&parent.schema, parent.table.as_str()),
        inside(range)
    ))
    .await
    .map_err(|source| Error::Postgres {
        doing: "create a partition",
        table: parent.table,
        source,
    })
}

/// Attaches a table that [`create_table`] created. No row of its range is elsewhere.
pub(crate) async fn attach(
    tx: &Transaction<'_>,
    parent: &Parent,
    name: &str,
    range: Range,
) -> Result<(), Error> {
    let child = qualified(&parent.schema, name);
    let above = qualified(&parent.schema, parent.table.as_str());
    let (from, to) = (timestamp(range.from_us), timestamp(range.to_us));
    // One command a call: a distributed Postgres passes the text of such a call on to its shards,
    // and they take one command. See `docs/decisions/0029-scale.md`.
    for sql in [
        format!(
            "ALTER TABLE {above} ATTACH PARTITION {child} FOR VALUES FROM ('{from}') TO ('{to}')"
        ),
        format!("ALTER TABLE {child} DROP CONSTRAINT {RANGE_CHECK}"),
    ] {
        tx.batch_execute(&sql)
            .await
            .map_err(|source| Error::Postgres {
                doing: "attach a partition",
                table: parent.table,
                source,
            })?;
    }
    Ok(())
}

/// Takes the strongest lock on the parent, before a partition with rows is attached.
///
/// A reader that waits for the lock on the DEFAULT partition has its list of partitions already: it
/// would see the moved rows neither there nor in their new partition. One that waits for the parent
/// has no list yet.
pub(crate) async fn lock_readers_out(tx: &Transaction<'_>, parent: &Parent) -> Result<(), Error> {
    let above = qualified(&parent.schema, parent.table.as_str());
    tx.batch_execute(&format!("LOCK TABLE ONLY {above} IN ACCESS EXCLUSIVE MODE"))
        .await
        .map_err(|source| Error::Postgres {
            doing: "lock the table to attach a partition with rows",
            table: parent.table,
            source,
        })
}

/// Takes the lock on the DEFAULT partition that ATTACH takes.
pub(crate) async fn lock_default(
    tx: &Transaction<'_>,
    table: Table,
    default: &Partition,
) -> Result<(), Error> {
    let leaf = qualified(&default.schema, &default.name);
    tx.batch_execute(&format!("LOCK TABLE {leaf} IN ACCESS EXCLUSIVE MODE"))
        .await
        .map_err(|source| Error::Postgres {
            doing: "lock the default partition",
            table,
            source,
        })
}

/// A free name for a partition, with a number appended if the name is taken: by a partition that
/// was detached and kept, or by an unrelated table.
pub(crate) async fn free_name(
    tx: &Transaction<'_>,
    parent: &Parent,
    range: Range,
) -> Result<String, Error> {
    let stem = range.partition_name(parent.table);
    let mut name = stem.clone();
    let mut number = 1;
    loop {
        let taken: bool = tx
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1 AND relnamespace = $2)
                     OR EXISTS (SELECT FROM pg_type WHERE typname = $1 AND typnamespace = $2)",
                &[&name, &parent.schema_oid],
            )
            .await
            .map_err(|source| Error::Postgres {
                doing: "find a name for a partition",
                table: parent.table,
                source,
            })?
            .get(0);
        if !taken {
            return Ok(name);
        }
        number += 1;
        name = format!("{stem}_{number}");
    }
}
