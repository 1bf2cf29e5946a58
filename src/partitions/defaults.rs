//! What is known of a DEFAULT partition: whether a range can be made a separate partition at
//! once, or only after its rows have been moved out (`empty`).
//!
//! ATTACH scans a DEFAULT partition under ACCESS EXCLUSIVE, at half a microsecond a row, unless a
//! valid CHECK constraint proves that it holds no row of the new range. A small one is scanned
//! before anyone notices; a large one needs the constraint, which is validated without such a lock.

use tokio_postgres::{GenericClient, Transaction};

use super::catalog::Partition;
use super::error::Error;
use super::literal::timestamp;
use super::range::Range;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::postgres::ident::qualified;

/// The CHECK constraint that keeps rows of a range out of the DEFAULT partition while that range
/// is being moved out of it.
pub(crate) const LEAVING: &str = "ingest_leaving";

/// A DEFAULT partition up to this size, about 15,000 rows, is scanned within a few milliseconds; once
/// for each partition that is attached.
const SMALL_BYTES: i64 = 2 << 20;

/// Rows that a lane moves within a second, while its batch waits.
const ROWS_AT_ONCE: i64 = 10_000;

/// The state of a DEFAULT partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultState {
    /// Whether a scan of it takes no time that matters.
    pub(crate) is_small: bool,
    /// The range that is being moved out, whose rows it refuses until then.
    pub(crate) leaving: Option<Range>,
}

/// What can be done with a range at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Its partition can be made now, with its rows.
    Now,
    /// Its rows stay in the DEFAULT partition for the time being.
    Stays,
    /// Rows of this range are being moved, and new ones have to wait.
    Leaving(Range),
}

/// Reads the state. The session prints and reads times in UTC, see [`super::catalog::begin`].
pub(crate) async fn read_state(
    tx: &Transaction<'_>,
    table: Table,
    default: &Partition,
) -> Result<DefaultState, Error> {
    let row = tx
        .query_one(
            r"SELECT coalesce((SELECT sum(pg_relation_size(t.relid)) FROM pg_partition_tree($1::oid::regclass) AS t), 0)::bigint,
                     k.oid IS NOT NULL, ends[1]::timestamptz, ends[2]::timestamptz
                FROM (SELECT) AS one
                LEFT JOIN pg_constraint AS k ON k.conrelid = $1 AND k.conname = $2
                LEFT JOIN LATERAL regexp_match(pg_get_constraintdef(k.oid),
                     '< ''([^'']+)''.* >= ''([^'']+)''') AS ends ON true",
            &[&default.oid, &LEAVING],
        )
        .await
        .map_err(failed(table))?;
    let leaving = row.get::<_, bool>(1).then(|| Range {
        from_us: row.get::<_, Option<Micros>>(2).map_or(i64::MIN, |at| at.0),
        to_us: row.get::<_, Option<Micros>>(3).map_or(i64::MAX, |at| at.0),
    });
    Ok(DefaultState {
        is_small: row.get::<_, i64>(0) <= SMALL_BYTES,
        leaving,
    })
}

/// Whether partitions for these ranges can be made at once.
pub(crate) async fn readiness(
    tx: &Transaction<'_>,
    table: Table,
    default: &Partition,
    ranges: &[Range],
) -> Result<Readiness, Error> {
    let state = read_state(tx, table, default).await?;
    if let Some(leaving) = state.leaving
        && ranges.iter().any(|range| leaving.overlaps(*range))
    {
        return Ok(Readiness::Leaving(leaving));
    }
    if !state.is_small {
        return Ok(Readiness::Stays);
    }
    let leaf = qualified(&default.schema, &default.name);
    for range in ranges {
        let sql = format!(
            "SELECT count(*) FROM (SELECT FROM {leaf} WHERE {} LIMIT {}) AS found",
            inside(*range),
            ROWS_AT_ONCE + 1
        );
        let row = tx.query_one(&sql, &[]).await.map_err(failed(table))?;
        if row.get::<_, i64>(0) > ROWS_AT_ONCE {
            return Ok(Readiness::Stays);
        }
    }
    Ok(Readiness::Now)
}

/// The condition that rows of a range fulfil.
pub(crate) fn inside(range: Range) -> String {
    let (from, to) = (timestamp(range.from_us), timestamp(range.to_us));
    format!("occurred_at >= '{from}' AND occurred_at < '{to}'")
}

/// The condition that all other rows fulfil, in the form that [`read_state`] reads back.
pub(crate) fn outside(range: Range) -> String {
    let (from, to) = (timestamp(range.from_us), timestamp(range.to_us));
    format!("occurred_at < '{from}' OR occurred_at >= '{to}'")
}

/// Moves the rows of a range out of the DEFAULT partition. Readers see them there until the COMMIT.
pub(crate) async fn move_rows(
    tx: &Transaction<'_>,
    parent: (Table, u32),
    default: &Partition,
    child: &str,
    range: Range,
) -> Result<u64, Error> {
    let (table, oid) = parent;
    let failed = |source| Error::Postgres {
        doing: "move rows out of the default partition",
        table,
        source,
    };
    let leaf = qualified(&default.schema, &default.name);
    // By name: an attached table may have its columns in another order.
    let columns: Option<String> = tx
        .query_one(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
            &[&oid],
        )
        .await
        .map_err(failed)?
        .get(0);
    let columns = columns.expect("a table partitioned by occurred_at has that column");
    tx.execute(
        &format!(
            "WITH moved AS (DELETE FROM {leaf} WHERE {} RETURNING {columns})
             INSERT INTO {child} ({columns}) SELECT {columns} FROM moved",
            inside(range)
        ),
        &[],
    )
    .await
    .map_err(failed)
}

/// The time of the newest row before an instant, or of the oldest one from another instant on.
pub(crate) async fn row_before_or_from(
    client: &impl GenericClient,
    table: Table,
    default: &Partition,
    before_us: i64,
    from_us: i64,
) -> Result<Option<Micros>, Error> {
    let leaf = qualified(&default.schema, &default.name);
    let (before, from) = (timestamp(before_us), timestamp(from_us));
    let sql = format!(
        "SELECT coalesce((SELECT min(occurred_at) FROM {leaf} WHERE occurred_at >= '{from}'),
                         (SELECT max(occurred_at) FROM {leaf} WHERE occurred_at < '{before}'))"
    );
    let row = client.query_one(&sql, &[]).await.map_err(failed(table))?;
    Ok(row.get(0))
}

/// Whether it holds no row.
pub(crate) async fn is_empty(
    client: &impl GenericClient,
    table: Table,
    default: &Partition,
) -> Result<bool, Error> {
    let leaf = qualified(&default.schema, &default.name);
    let sql = format!("SELECT NOT EXISTS (SELECT FROM {leaf})");
    let row = client.query_one(&sql, &[]).await.map_err(failed(table))?;
    Ok(row.get(0))
}

fn failed(table: Table) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Postgres {
        doing: "read the default partition",
        table,
        source,
    }
}
