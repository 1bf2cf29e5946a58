//! The existing partitions, read from the Postgres catalog.
//!
//! Invariant: bounds are read in a transaction with a pinned time zone and date style, so the
//! session's own settings cannot change their meaning.
//!
//! Does not look below a partition that is itself partitioned. It counts as covering its whole
//! range; the operator who created it maintains its parts.

use std::collections::HashMap;

use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::coverage::Coverage;
use super::error::Error;
use super::indexes::{IndexState, read_indexes, state};
use super::range::Range;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::postgres::citus::is_on_workers;

/// One partition, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The partition's name, without its schema.
    pub name: String,
    /// The first instant inside; `None` if it has no beginning.
    pub from_us: Option<i64>,
    /// The first instant after it; `None` if it has no end.
    pub to_us: Option<i64>,
    /// Rows at the last VACUUM or ANALYZE; `None` before the first.
    pub rows_estimate: Option<i64>,
    /// Bytes on disk, with indexes and TOAST.
    pub bytes: i64,
    /// Whether it holds the rows that no other partition holds.
    pub is_default: bool,
    /// Which indexes of a sealed partition it has. `None` if it is never sealed: a default
    /// partition, or one that is not a plain table.
    pub index_state: Option<IndexState>,
}

/// A parent table.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) table: Table,
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) schema_oid: u32,
}

/// The bound of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Rows of this range.
    Range(Range),
    /// Rows that no other partition holds.
    Default,
}

/// A partition in the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) bound: Bound,
    /// `DETACH … CONCURRENTLY` has begun: no row is routed here any more.
    pub(crate) is_detaching: bool,
}

/// Reads the ranges of time that a table has partitions for.
pub async fn read_coverage(client: &mut Client, table: Table) -> Result<Coverage, Error> {
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let partitions = read_partitions(&tx, &parent).await?;
    end(tx, table).await?;
    Ok(coverage_of(&partitions))
}

/// Lists a table's partitions in order of time, the default partition last.
pub async fn list(client: &mut Client, table: Table) -> Result<Vec<PartitionInfo>, Error> {
    let (all, _) = newest(client, table, usize::MAX).await?;
    Ok(all)
}

/// Lists the newest partitions of a table, at most `most`, as [`list`] does. Also returns how many
/// older ones there are.
pub async fn newest(
    client: &mut Client,
    table: Table,
    most: usize,
) -> Result<(Vec<PartitionInfo>, usize), Error> {
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let mut partitions = read_partitions(&tx, &parent).await?;
    partitions.sort_by(|a, b| in_time(a).cmp(&in_time(b)));
    let older = partitions.len().saturating_sub(most);
    partitions.drain(..older);
    let oids: Vec<u32> = partitions.iter().map(|partition| partition.oid).collect();
    let indexes = read_indexes(&tx, table, &oids).await?;
    let sizes = measure(&tx, table, &oids).await?;
    end(tx, table).await?;
    let info = |partition: Partition| {
        let ends = match partition.bound {
            Bound::Range(range) => (
                Some(range.from_us).filter(|&us| us != i64::MIN),
                Some(range.to_us).filter(|&us| us != i64::MAX),
            ),
            Bound::Default => (None, None),
        };
        let (bytes, rows_estimate) = sizes.get(&partition.oid).copied().unwrap_or_default();
        PartitionInfo {
            from_us: ends.0,
            to_us: ends.1,
            rows_estimate,
            bytes,
            is_default: partition.bound == Bound::Default,
            index_state: indexes
                .get(&partition.oid)
                .filter(|_| partition.bound != Bound::Default)
                .map(|found| state(table, found)),
            name: partition.name,
        }
    };
    Ok((partitions.into_iter().map(info).collect(), older))
}

/// What partitions are sorted by: the beginning, the default partition last.
fn in_time(partition: &Partition) -> (i64, &str) {
    let from_us = match partition.bound {
        Bound::Range(range) => range.from_us,
        Bound::Default => i64::MAX,
    };
    (from_us, &partition.name)
}

/// Bytes and estimated rows of each partition. If one is itself partitioned, its rows are in its
/// leaves.
async fn measure(
    tx: &Transaction<'_>,
    table: Table,
    oids: &[u32],
) -> Result<HashMap<u32, (i64, Option<i64>)>, Error> {
    let failed = |source| Error::Postgres {
        doing: "measure the partitions",
        table,
        source,
    };
    let (bytes, rows) = match is_on_workers(tx, table).await.map_err(failed)? {
        // Statistics are on the workers, too, where ANALYZE leaves them.
        true => ("citus_total_relation_size(c.oid)", "NULL::bigint"),
        false => (
            "pg_total_relation_size(c.oid)",
            "CASE WHEN min(c.reltuples) >= 0 THEN sum(c.reltuples)::bigint END",
        ),
    };
    let sql = format!(
        "SELECT part.oid, coalesce(sum({bytes}), 0)::bigint, {rows}
           FROM unnest($1::oid[]) AS part (oid)
          CROSS JOIN LATERAL pg_partition_tree(part.oid::regclass) AS t
           JOIN pg_class c ON c.oid = t.relid
          WHERE t.isleaf
          GROUP BY part.oid"
    );
    let rows = tx.query(&sql, &[&oids]).await.map_err(failed)?;
    let measured = rows
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))));
    Ok(measured.collect())
}

/// Begins a transaction in which Postgres reads a bound as it prints it: not every time zone's
/// abbreviation means that zone.
///
/// READ COMMITTED, because a read after a wait for a lock must see what its holder did.
pub(crate) async fn begin(
    client: &mut Client,
    table: Table,
    read_only: bool,
) -> Result<Transaction<'_>, Error> {
    let failed = |source| Error::Postgres {
        doing: "begin a transaction on the partitions",
        table,
        source,
    };
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(read_only)
        .start()
        .await
        .map_err(failed)?;
    tx.batch_execute("SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'")
        .await
        .map_err(failed)?;
    Ok(tx)
}

/// Ends a read-only transaction.
pub(crate) async fn end(tx: Transaction<'_>, table: Table) -> Result<(), Error> {
    tx.commit().await.map_err(|source| Error::Postgres {
        doing: "read the partitions",
        table,
        source,
    })
}

/// Finds a table through the search_path, and checks that it is partitioned by `RANGE
/// (occurred_at)`.
pub(crate) async fn read_parent(tx: &Transaction<'_>, table: Table) -> Result<Parent, Error> {
    let row = tx
        .query_opt(
            "SELECT c.oid, n.oid, n.nspname::text, pg_get_partkeydef(c.oid)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass($1)",
            &[&table.as_str()],
        )
        .await
        .map_err(|source| Error::Postgres {
            doing: "find the parent",
            table,
            source,
        })?
        .ok_or_else(|| Error::NotPartitioned {
            table,
            found: "nowhere to be found".to_owned(),
        })?;
    let key: Option<String> = row.get(3);
    match key.as_deref() {
        Some("RANGE (occurred_at)") => Ok(Parent {
            table,
            oid: row.get(0),
            schema_oid: row.get(1),
            schema: row.get(2),
        }),
        Some(other) => Err(Error::NotPartitioned {
            table,
            found: format!("partitioned by {other}, not by RANGE (occurred_at)"),
        }),
        None => Err(Error::NotPartitioned {
            table,
            found: "a plain table".to_owned(),
        }),
    }
}

/// Reads the partitions of a parent with their bounds.
pub(crate) async fn read_partitions(
    tx: &Transaction<'_>,
    parent: &Parent,
) -> Result<Vec<Partition>, Error> {
    let rows = tx
        .query(
            r"SELECT c.oid, n.nspname::text, c.relname::text, i.inhdetachpending,
                     bound, ends IS NOT NULL,
                     trim('''' FROM nullif(nullif(ends[1], 'MINVALUE'), '''-infinity'''))::timestamptz,
                     trim('''' FROM nullif(nullif(ends[2], 'MAXVALUE'), '''infinity'''))::timestamptz
              FROM pg_inherits i
              JOIN pg_class c ON c.oid = i.inhrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace
              CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS bound
              CROSS JOIN LATERAL
                  regexp_match(bound, '^FOR VALUES FROM \((.*)\) TO \((.*)\)$') AS ends
              -- Without a bound, the partition was dropped during the query.
              WHERE i.inhparent = $1 AND bound IS NOT NULL",
            &[&parent.oid],
        )
        .await
        .map_err(|source| Error::Postgres {
            doing: "read the partitions",
            table: parent.table,
            source,
        })?;
    rows.into_iter()
        .map(|row| {
            let name: String = row.get(2);
            let bound = match (row.get(4), row.get(5)) {
                ("DEFAULT", _) => Bound::Default,
                (_, true) => Bound::Range(Range {
                    from_us: row.get::<_, Option<Micros>>(6).map_or(i64::MIN, |at| at.0),
                    to_us: row.get::<_, Option<Micros>>(7).map_or(i64::MAX, |at| at.0),
                }),
                (text, false) => {
                    return Err(Error::NotPartitioned {
                        table: parent.table,
                        found: format!("a parent of {name}, whose bound {text} is no range"),
                    });
                }
            };
            Ok(Partition {
                oid: row.get(0),
                schema: row.get(1),
                name,
                bound,
                is_detaching: row.get(3),
            })
        })
        .collect()
}

/// The times that partitions cover together.
pub(crate) fn coverage_of(partitions: &[Partition]) -> Coverage {
    Coverage::of(
        partitions
            .iter()
            .filter_map(|partition| match partition.bound {
                Bound::Range(range) if !partition.is_detaching => Some(range),
                _ => None,
            }),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(from_us: i64, to_us: i64) -> Range {
        Range { from_us, to_us }
    }

    #[test]
    fn a_range_with_a_hole_is_missing_and_its_hole_is_the_gap() {
        let coverage = Coverage::of([range(0, 10), range(20, 30), range(10, 15)]);
        assert!(
            coverage.covers(14)
                && !coverage.covers(15)
                && coverage.covers(20)
                && !coverage.covers(30)
        );
        assert_eq!(
            coverage.missing([range(25, 35), range(0, 15), range(5, 25), range(5, 25)]),
            [range(5, 25), range(25, 35)]
        );
        assert_eq!(coverage.gaps(range(5, 35)), [range(15, 20), range(30, 35)]);
        assert_eq!((coverage.end_from(3), coverage.end_from(17)), (15, 17));
    }

    #[test]
    fn a_partition_without_beginning_covers_all_that_was_before_it() {
        let coverage = Coverage::of([range(i64::MIN, 0), range(50, i64::MAX)]);
        assert!(coverage.covers(-1) && !coverage.covers(0) && coverage.covers(i64::MAX - 1));
        assert_eq!(coverage.gaps(range(-10, 60)), [range(0, 50)]);
    }

    proptest! {
        #[test]
        fn covered_instants_and_gaps_share_nothing_and_leave_nothing_out(
            parts in proptest::collection::vec((0i64..50, 1i64..9), 0..8),
            from in 0i64..50,
            length in 1i64..20,
        ) {
            let parts: Vec<Range> = parts.into_iter().map(|(from, n)| range(from, from + n)).collect();
            let mut coverage = Coverage::of(parts.iter().copied());
            let wanted = range(from, from + length);
            let gaps = coverage.gaps(wanted);
            for us in wanted.from_us..wanted.to_us {
                let is_covered = parts.iter().any(|part| part.contains(us));
                prop_assert_eq!(coverage.covers(us), is_covered);
                prop_assert_eq!(gaps.iter().filter(|gap| gap.contains(us)).count(), usize::from(!is_covered));
            }
            coverage.add(wanted);
            prop_assert!(coverage.missing([wanted]).is_empty());
        }
    }
}
