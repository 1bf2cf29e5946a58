//! `ingest_partition_log`: what was done to partitions, when, and why.
//!
//! Invariant: an entry is written in the transaction of the change, or after it. So every entry is
//! true, but a change may lack its entry.

use std::collections::HashMap;

use tokio_postgres::GenericClient;

use super::error::Error;
use super::literal::timestamp;
use super::range::Range;
use crate::event::table::Table;

/// A change to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    /// All its indexes exist, and it was analyzed.
    Sealed,
    /// It is a table by itself now, and its rows are no longer the parent's.
    Detach,
    /// It is gone, with its rows.
    Drop,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Sealed => "sealed",
            Action::Detach => "detach",
            Action::Drop => "drop",
        }
    }
}

/// The log's entries for one partition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    /// When it was created; `None` if this service did not create it.
    pub(crate) made_us: Option<i64>,
    /// Whether it has been sealed since then.
    pub(crate) is_sealed: bool,
}

/// Records a change to a partition.
pub(crate) async fn record(
    client: &impl GenericClient,
    table: Table,
    partition: &str,
    range: Range,
    action: Action,
    reason: &str,
) -> Result<(), Error> {
    client
        .execute(
            "INSERT INTO ingest_partition_log
                 (table_name, partition_name, action, range_from, range_to, instance, reason)
             VALUES ($1, $2, $3, $4::text::timestamptz, $5::text::timestamptz,
                     nullif(current_setting('application_name'), ''), $6)",
            &[
                &table.as_str(),
                &partition,
                &action.as_str(),
                &timestamp(range.from_us),
                &timestamp(range.to_us),
                &reason,
            ],
        )
        .await
        .map_err(|source| Error::Postgres {
            doing: "log what was done to a partition",
            table,
            source,
        })?;
    Ok(())
}

/// The log's entries for a table's partitions, by name. Several partitions may have had the same
/// name over time: the latest counts.
pub(crate) async fn histories(
    client: &impl GenericClient,
    table: Table,
) -> Result<HashMap<String, History>, Error> {
    let rows = client
        .query(
            "SELECT partition_name,
                    (extract(epoch FROM max(at) FILTER (WHERE action = 'create')) * 1000000)::bigint,
                    coalesce(max(id) FILTER (WHERE action = 'sealed')
                             > coalesce(max(id) FILTER (WHERE action = 'create'), 0), false)
             FROM ingest_partition_log WHERE table_name = $1 GROUP BY partition_name",
            &[&table.as_str()],
        )
        .await
        .map_err(|source| Error::Postgres {
            doing: "read the log of the partitions",
            table,
            source,
        })?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let history = History {
                made_us: row.get(1),
                is_sealed: row.get(2),
            };
            (row.get(0), history)
        })
        .collect())
}
