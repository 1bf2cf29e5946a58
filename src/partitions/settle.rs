//! Moves a range out of a DEFAULT partition, however large that is.
//!
//! Invariant: a row is in exactly one place at any time, for every reader: the transaction that
//! moves the rows of a range attaches their partition.
//!
//! Invariant: ACCESS EXCLUSIVE on the table and its DEFAULT partition is held for an instant. A CHECK constraint
//! first keeps new rows of the range out, which wait in quarantine; then the rows are moved and the
//! constraint is validated, under locks that conflict with no reader or writer; ATTACH then takes
//! the constraint for proof, and scans nothing.

use std::time::Duration;

use tokio_postgres::{Client, Transaction};
use tracing::{info, warn};

use super::attach::{
    RANGE_CHECK, attach, create_table, free_name, lock_default, lock_parent, lock_readers_out,
};
use super::catalog::{Parent, Partition, begin};
use super::create::{Created, log_created};
use super::defaults::{LEAVING, move_rows, outside};
use super::error::Error;
use super::indexes::{IndexProfile, add_missing};
use super::range::Range;
use crate::event::table::Table;
use crate::postgres::ident::{qualified, quoted};
use crate::postgres::patience::{
    LOCK_WAIT_MS, Patience, is_contention, is_lock_missed, run_locked,
};

/// How long to try for a lock, while long transactions hold it.
const PATIENCE: Duration = Duration::from_secs(600);

/// The wait for a lock that no reader or writer queues behind.
const QUIET_WAIT: &str = "60s";

/// A DEFAULT partition with something to do.
pub(super) struct Work {
    pub(super) parent: Parent,
    pub(super) default: Partition,
    pub(super) is_small: bool,
    /// An earlier attempt was interrupted.
    pub(super) is_interrupted: bool,
    /// Its rows have been moved, and their space is not free yet.
    pub(super) is_bloated: bool,
    /// The range to move.
    pub(super) hole: Option<Range>,
    /// The parts of it that have no partition.
    pub(super) gaps: Vec<Range>,
}

/// Moves a range.
pub(super) async fn settle(
    client: &mut Client,
    work: &Work,
    hole: Range,
    indexes: IndexProfile,
) -> Result<Vec<Created>, Error> {
    let table = work.parent.table;
    info!(%table, range = %hole, "moving rows out of the default partition");
    drop_leftovers(client, work).await?;
    let children = create_children(client, work).await?;
    keep_out(client, work, hole).await?;

    let tx = begin(client, table, false).await?;
    let failed = failed("move rows out of the default partition", table);
    // A deferred constraint of rows that were moved would stand in the way of ATTACH.
    tx.batch_execute("SET LOCAL statement_timeout = 0; SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(&failed)?;
    let mut made = Vec::new();
    for (name, range) in children {
        let child = qualified(&work.parent.schema, &name);
        let of = (table, work.parent.oid);
        let moved_rows = move_rows(&tx, of, &work.default, &child, range).await?;
        if indexes == IndexProfile::Full {
            add_missing(&tx, table, &work.parent.schema, &name).await?;
        }
        made.push(Created {
            name,
            range,
            moved_rows,
        });
    }
    let leaf = qualified(&work.default.schema, &work.default.name);
    for sql in [
        format!("SET LOCAL lock_timeout = '{QUIET_WAIT}'"),
        format!("ALTER TABLE {leaf} VALIDATE CONSTRAINT {LEAVING}"),
        format!("SET LOCAL lock_timeout = {LOCK_WAIT_MS}"),
    ] {
        tx.batch_execute(&sql).await.map_err(&failed)?;
    }
    let patience = Patience::new(PATIENCE);
    loop {
        tx.batch_execute("SAVEPOINT attach")
            .await
            .map_err(&failed)?;
        match attach_all(&tx, work, &made).await {
            Ok(()) => break,
            Err(Error::Postgres { source, .. }) if is_contention(&source) => {
                tx.batch_execute("ROLLBACK TO attach")
                    .await
                    .map_err(&failed)?;
                if !patience.pause().await {
                    return Err(Error::Busy { table, source });
                }
            }
            Err(error) => return Err(error),
        }
    }
    for created in &made {
        let why = "from the default partition";
        log_created(&tx, table, created, Some(&work.default), why).await?;
    }
    tx.commit().await.map_err(failed)?;
    Ok(made)
}

/// Creates the tables, with the parent's foreign keys: ATTACH would check those of all rows, under
/// its lock.
async fn create_children(client: &mut Client, work: &Work) -> Result<Vec<(String, Range)>, Error> {
    let Work { parent, gaps, .. } = work;
    let table = parent.table;
    let patience = Patience::new(PATIENCE);
    loop {
        let tx = begin(client, table, false).await?;
        let creating = async {
            let mut children = Vec::new();
            lock_parent(&tx, parent).await?;
            for &range in gaps {
                let name = free_name(&tx, parent, range).await?;
                create_table(&tx, parent, &name, range).await?;
                add_foreign_keys(&tx, parent, &name).await?;
                children.push((name, range));
            }
            Ok::<_, Error>(children)
        };
        let created = creating.await;
        match created {
            Ok(children) => {
                let failed = failed("create a partition", table);
                return tx.commit().await.map_err(failed).map(|()| children);
            }
            Err(Error::Postgres { source, .. }) if is_contention(&source) => {
                drop(tx);
                if !patience.pause().await {
                    return Err(Error::Busy { table, source });
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn add_foreign_keys(tx: &Transaction<'_>, parent: &Parent, child: &str) -> Result<(), Error> {
    let failed = failed("create a partition", parent.table);
    let keys = tx
        .query(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1 AND contype = 'f'",
            &[&parent.oid],
        )
        .await
        .map_err(&failed)?;
    for key in keys {
        let definition: String = key.get(0);
        let child = qualified(&parent.schema, child);
        tx.batch_execute(&format!("ALTER TABLE {child} ADD {definition}"))
            .await
            .map_err(&failed)?;
    }
    Ok(())
}

/// Keeps new rows of the range out of the DEFAULT partition.
async fn keep_out(client: &Client, work: &Work, hole: Range) -> Result<(), Error> {
    let table = work.parent.table;
    let leaf = qualified(&work.default.schema, &work.default.name);
    let lock = format!("LOCK TABLE {leaf} IN ACCESS EXCLUSIVE MODE");
    let sql = format!(
        "ALTER TABLE {leaf} ADD CONSTRAINT {LEAVING} CHECK ({}) NOT VALID",
        outside(hole)
    );
    let added = run_locked(client, &lock, &sql, Patience::new(PATIENCE)).await;
    added.map_err(|source| busy_or(table, source))
}

/// Attaches all partitions and lets rows in again. No row of their ranges is elsewhere.
async fn attach_all(tx: &Transaction<'_>, work: &Work, made: &[Created]) -> Result<(), Error> {
    let table = work.parent.table;
    let leaf = qualified(&work.default.schema, &work.default.name);
    lock_parent(tx, &work.parent).await?;
    lock_readers_out(tx, &work.parent).await?;
    lock_default(tx, table, &work.default).await?;
    for created in made {
        attach(tx, &work.parent, &created.name, created.range).await?;
    }
    tx.batch_execute(&format!("ALTER TABLE {leaf} DROP CONSTRAINT {LEAVING}"))
        .await
        .map_err(failed("let rows into the default partition again", table))
}

/// Undoes an attempt that did not end: lets rows in again, and drops the tables that were not
/// attached.
pub(super) async fn undo(client: &Client, work: &Work) -> Result<(), Error> {
    let table = work.parent.table;
    let leaf = qualified(&work.default.schema, &work.default.name);
    let lock = format!("LOCK TABLE {leaf} IN ACCESS EXCLUSIVE MODE");
    let sql = format!("ALTER TABLE {leaf} DROP CONSTRAINT IF EXISTS {LEAVING}");
    let undone = run_locked(client, &lock, &sql, Patience::new(PATIENCE)).await;
    undone.map_err(|source| busy_or(table, source))?;
    drop_leftovers(client, work).await
}

/// Drops tables that were never attached. They are empty, as rows are moved in the transaction that
/// attaches.
async fn drop_leftovers(client: &Client, work: &Work) -> Result<(), Error> {
    let table = work.parent.table;
    let failed = failed("drop a partition that was never attached", table);
    let leftovers = client
        .query(
            "SELECT c.relname::text FROM pg_class AS c JOIN pg_constraint AS k ON k.conrelid = c.oid
              WHERE k.conname = $1 AND k.contype = 'c' AND c.relkind = 'r' AND NOT c.relispartition
                AND c.relnamespace = $2 AND starts_with(c.relname::text, $3)",
            &[
                &RANGE_CHECK,
                &work.parent.schema_oid,
                &format!("{table}_"),
            ],
        )
        .await
        .map_err(&failed)?;
    for leftover in leftovers {
        let name: String = leftover.get(0);
        let child = qualified(&work.parent.schema, &name);
        let sql = format!("SELECT EXISTS (SELECT FROM {child})");
        let has_rows: bool = client.query_one(&sql, &[]).await.map_err(&failed)?.get(0);
        if has_rows {
            warn!(
                table = name,
                "a table that looks like a partition and is none holds rows: left alone"
            );
            continue;
        }
        let sql = format!(
            "DROP TABLE {}.{}",
            quoted(&work.parent.schema),
            quoted(&name)
        );
        client.batch_execute(&sql).await.map_err(&failed)?;
    }
    Ok(())
}

fn busy_or(table: Table, source: tokio_postgres::Error) -> Error {
    match is_lock_missed(&source) {
        true => Error::Busy { table, source },
        false => failed("change the default partition", table)(source),
    }
}

pub(super) fn failed(doing: &'static str, table: Table) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Postgres {
        doing,
        table,
        source,
    }
}
