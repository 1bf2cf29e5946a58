//! Whether a row lies where its partition's name and bounds say.

use std::collections::HashMap;

use anyhow::Context as _;
use tokio_postgres::Client;

use crate::report::time;

/// The partitions of one table by oid.
pub struct Partitions {
    by_oid: HashMap<u32, Partition>,
}

struct Partition {
    name: String,
    /// In microseconds; none for a default partition.
    bounds: Option<(i64, i64)>,
    /// Its name says another day or month than its bounds.
    is_misnamed: bool,
}

/// Bounds are literals in an expression, which Postgres casts itself; the suffix of a
/// name is a day (`YYYY_MM_DD`) or a month (`YYYY_MM`), or says nothing.
const QUERY: &str = r"
    SELECT oid, name, (extract(epoch FROM from_) * 1000000)::bigint,
           (extract(epoch FROM to_) * 1000000)::bigint,
           coalesce(suffix ~ '^\d{4}_\d\d(_\d\d)?$'
                    AND to_char(from_, 'YYYY_MM_DD') <> suffix || CASE length(suffix) WHEN 7 THEN '_01' ELSE '' END, false)
    FROM (SELECT oid, relname::text AS name, substr(relname, length($1::text) + 2) AS suffix,
                 (regexp_match(bound, 'FROM \(''(.*?)''\)'))[1]::timestamptz AT TIME ZONE 'UTC' AS from_,
                 (regexp_match(bound, 'TO \(''(.*?)''\)'))[1]::timestamptz AT TIME ZONE 'UTC' AS to_
          FROM (SELECT c.oid, c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
                FROM pg_partition_tree($1::text::regclass) t JOIN pg_class c ON c.oid = t.relid
                WHERE t.isleaf) AS leaves) AS partitions";

impl Partitions {
    pub async fn read(client: &Client, table: &str) -> anyhow::Result<Self> {
        let rows = client.query(QUERY, &[&table]).await;
        let rows = rows.with_context(|| format!("cannot list the partitions of {table}"))?;
        let mut by_oid = HashMap::new();
        for row in rows {
            let (from, to): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
            let partition = Partition {
                name: row.try_get(1)?,
                bounds: from.zip(to),
                is_misnamed: row.try_get(4)?,
            };
            by_oid.insert(row.try_get(0)?, partition);
        }
        Ok(Self { by_oid })
    }

    /// What is wrong with a row of `occurred_us` in partition `oid`.
    pub fn complaint(&self, oid: u32, occurred_us: i64) -> Option<String> {
        let Some(partition) = self.by_oid.get(&oid) else {
            // Made after the list was read; the next look sees it.
            return Some(format!("it lies in a partition of oid {oid} that is none"));
        };
        let name = &partition.name;
        match partition.bounds {
            None => Some(format!("it lies in {name}, which has no range")),
            Some((from, to)) if !(from..to).contains(&occurred_us) => {
                Some(format!("it lies in {name}, which does not reach it"))
            }
            Some((from, _)) if partition.is_misnamed => {
                let from = time(from);
                Some(format!(
                    "it lies in {name}, which begins at {from} in truth"
                ))
            }
            Some(_) => None,
        }
    }
}
