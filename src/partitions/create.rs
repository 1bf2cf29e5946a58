//! Creates missing partitions while readers and writers run.
//!
//! Any number of processes may want the same range at once: one creates it, all succeed. How a
//! partition is made, and under which locks, is in `attach`.
//!
//! With a DEFAULT partition, ATTACH takes ACCESS EXCLUSIVE on that one. It is asked for with a short
//! timeout, and only where little is to be done under it: rows of a large DEFAULT partition stay
//! there until `empty` moves them.
//!
//! Does not limit the number of partitions: see the creation budget.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::attach::{
    TURN_WAIT_MS, attach, create_table, free_name, lock_default, lock_parent, lock_readers_out,
};
use super::catalog::{
    Bound, Parent, Partition, begin, coverage_of, read_coverage, read_parent, read_partitions,
};
use super::defaults::{Readiness, move_rows, readiness};
use super::error::Error;
use super::history::{Action, record};
use super::indexes::{IndexProfile, add_missing};
use super::range::{Interval, Range};
use crate::backoff::jittered;
use crate::event::table::Table;
use crate::postgres::ident::qualified;
use crate::postgres::patience::is_contention;

/// Attempts before the table counts as busy. In the pauses between them, the statements in the
/// queue get their turn.
pub(crate) const ATTEMPTS: u32 = 20;

/// The same for who has a batch in hand.
pub(crate) const FEW_ATTEMPTS: u32 = 3;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// A partition that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its name, without its schema.
    pub name: String,
    pub range: Range,
    /// Rows that were moved into it from the default partition.
    pub moved_rows: u64,
}

/// How a wanted range was covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// Partitions already covered all of it.
    Existed,
    /// No partition covered any of it; now one does.
    Created(Created),
    /// Partitions of other sizes covered parts of it. Each gap between them got one partition.
    Filled(Vec<Created>),
    /// None was created: the DEFAULT partition takes its rows, until what it holds has been moved.
    LeftInDefault,
}

impl Ensured {
    /// The partitions that were created.
    pub fn created(&self) -> &[Created] {
        match self {
            Ensured::Existed | Ensured::LeftInDefault => &[],
            Ensured::Created(created) => std::slice::from_ref(created),
            Ensured::Filled(created) => created,
        }
    }
}

/// Ensures that all of `range` has a partition of `table`.
///
/// Runs in short transactions that it begins itself. `why` is recorded in `ingest_partition_log`
/// for each partition that is created, with the connection's application name. Each wait for a lock
/// is short: after a few attempts the result is [`Error::Busy`].
pub async fn ensure(
    client: &mut Client,
    table: Table,
    range: Range,
    why: &str,
) -> Result<Ensured, Error> {
    ensure_with(client, table, range, IndexProfile::Deferred, why).await
}

/// [`ensure`] with an index profile for the new partitions.
pub async fn ensure_with(
    client: &mut Client,
    table: Table,
    range: Range,
    profile: IndexProfile,
    why: &str,
) -> Result<Ensured, Error> {
    ensure_all(client, table, &[range], profile, why, ATTEMPTS).await
}

/// [`ensure_with`] for several ranges, in one transaction and in a given number of attempts: where locks are
/// hard to get, they are needed once.
pub(crate) async fn ensure_all(
    client: &mut Client,
    table: Table,
    ranges: &[Range],
    profile: IndexProfile,
    why: &str,
    attempts: u32,
) -> Result<Ensured, Error> {
    let mut attempt = 1;
    loop {
        match attempt_once(client, table, ranges, profile, why).await {
            Err(Error::Postgres { source, .. }) if is_passing(&source) && attempt < attempts => {
                tokio::time::sleep(jittered(PAUSE)).await;
                attempt += 1;
            }
            Err(Error::Postgres { source, .. }) if is_contention(&source) => {
                return Err(Error::Busy { table, source });
            }
            outcome => return outcome,
        }
    }
}

/// Ensures that the current range of `interval` and the next `ahead` ranges have partitions.
/// Returns those that were created.
pub async fn ensure_ahead(
    client: &mut Client,
    table: Table,
    interval: Interval,
    now_us: i64,
    ahead: u32,
) -> Result<Vec<Created>, Error> {
    let coverage = read_coverage(client, table).await?;
    let mut created = Vec::new();
    for range in coverage.missing(interval.ranges_ahead(now_us, ahead)) {
        let ensured = ensure(client, table, range, "ahead of time").await?;
        created.extend_from_slice(ensured.created());
    }
    Ok(created)
}

/// Whether another attempt may succeed or find the partition: after contention, or after a session
/// without our advisory lock (an operator, another tool) created it first.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    is_contention(error)
        || error.code().is_some_and(|code| {
            *code == SqlState::DUPLICATE_TABLE
                || *code == SqlState::DUPLICATE_OBJECT
                || *code == SqlState::UNIQUE_VIOLATION
                || *code == SqlState::INVALID_OBJECT_DEFINITION
                || *code == SqlState::UNDEFINED_TABLE
        })
}

async fn attempt_once(
    client: &mut Client,
    table: Table,
    ranges: &[Range],
    profile: IndexProfile,
    why: &str,
) -> Result<Ensured, Error> {
    let tx = begin(client, table, false).await?;
    let parent = read_parent(&tx, table).await?;
    lock_parent(&tx, &parent).await?;

    // Only a read under the locks stays true until the COMMIT.
    let partitions = read_partitions(&tx, &parent).await?;
    let coverage = coverage_of(&partitions);
    let gaps: Vec<Range> = ranges
        .iter()
        .flat_map(|range| coverage.gaps(*range))
        .collect();
    if gaps.is_empty() {
        return Ok(Ensured::Existed);
    }
    if let Some(leaving) = partitions.iter().find(|partition| {
        partition.is_detaching
            && matches!(partition.bound, Bound::Range(held) if gaps.iter().any(|gap| gap.overlaps(held)))
    }) {
        return Err(Error::Detaching { table, partition: leaving.name.clone() });
    }

    let default = partitions.iter().find(|p| p.bound == Bound::Default);
    if let Some(default) = default {
        match readiness(&tx, table, default, &gaps).await? {
            Readiness::Now => {}
            Readiness::Stays => return Ok(Ensured::LeftInDefault),
            Readiness::Leaving(range) => return Err(Error::Leaving { table, range }),
        }
    }
    let mut made = Vec::with_capacity(gaps.len());
    for &gap in &gaps {
        made.push(create(&tx, &parent, default, gap, profile).await?);
    }
    if default.is_none() {
        // No session queues behind the locks that are held now.
        let wait = format!("SET LOCAL lock_timeout = {TURN_WAIT_MS}");
        tx.batch_execute(&wait)
            .await
            .map_err(|source| Error::Postgres {
                doing: "log what was done to a partition",
                table,
                source,
            })?;
    }
    for created in &made {
        log_created(&tx, table, created, default, why).await?;
    }
    tx.commit().await.map_err(|source| Error::Postgres {
        doing: "commit a new partition",
        table,
        source,
    })?;

    let whole = gaps == ranges && gaps.len() == 1;
    Ok(match made.pop() {
        Some(only) if whole => Ensured::Created(only),
        Some(last) => {
            made.push(last);
            Ensured::Filled(made)
        }
        None => Ensured::Existed,
    })
}

/// Creates one partition. The parent is locked and no partition overlaps `range`.
async fn create(
    tx: &Transaction<'_>,
    parent: &Parent,
    default: Option<&Partition>,
    range: Range,
    profile: IndexProfile,
) -> Result<Created, Error> {
    let name = free_name(tx, parent, range).await?;
    let child = qualified(&parent.schema, &name);
    create_table(tx, parent, &name, range).await?;
    let mut moved_rows = 0;
    if let Some(default) = default {
        let of = (parent.table, parent.oid);
        moved_rows = move_rows(tx, of, default, &child, range).await?;
        if moved_rows > 0 {
            lock_readers_out(tx, parent).await?;
        }
        // ATTACH takes this lock to scan it. Taken first, it keeps out rows that would be in the
        // way, and those that came during the move are moved as well.
        lock_default(tx, parent.table, default).await?;
        let late_rows = move_rows(tx, of, default, &child, range).await?;
        if moved_rows == 0 && late_rows > 0 {
            lock_readers_out(tx, parent).await?;
        }
        moved_rows += late_rows;
    }
    // After the moved rows, which are then indexed in bulk.
    if profile == IndexProfile::Full {
        add_missing(tx, parent.table, &parent.schema, &name).await?;
    }
    attach(tx, parent, &name, range).await?;
    Ok(Created {
        name,
        range,
        moved_rows,
    })
}

/// Records who created the partition and why, in the transaction that creates it.
pub(crate) async fn log_created(
    tx: &Transaction<'_>,
    table: Table,
    created: &Created,
    default: Option<&Partition>,
    why: &str,
) -> Result<(), Error> {
    let reason = match default {
        Some(default) if created.moved_rows > 0 => {
            format!(
                "{why}; moved {} rows out of {}",
                created.moved_rows, default.name
            )
        }
        _ => why.to_owned(),
    };
    record(
        tx,
        table,
        &created.name,
        created.range,
        Action::Create,
        &reason,
    )
    .await
}
