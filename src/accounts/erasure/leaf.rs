//! The tables that hold an event table's rows, and how their rows of one user are found.
//!
//! Tables that `--retain-keep` has left behind hold such rows, too. They are known by their entries in
//! `ingest_removed_rows`, even if they were renamed.

use tokio_postgres::{Error, GenericClient};

use crate::event::table::Table;
use crate::postgres::citus::on_workers;

/// A table with rows.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// As statements name it.
    pub(super) name: String,
    pub(super) search: Search,
    /// The partition, or the detached table, that it belongs to.
    pub(super) root: u32,
}

/// How a user's rows are found in a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) enum Search {
    /// By an index that begins with tenant and user.
    Index,
    /// By reading this many blocks.
    Blocks(i64),
    /// By a worker of Citus: all at once, as rows have no place here.
    Worker,
}

/// Which leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those of the DEFAULT partition, from which rows move to others.
    Default,
    /// Those of all other partitions, with those that are being detached.
    Others,
    /// Those of tables that were partitions, and were kept when they were detached.
    Kept,
}

/// The partitions of a table: the DEFAULT one, or all others.
const ATTACHED: &str = "
    SELECT c.oid, c.relkind
      FROM pg_partitioned_table AS p
      JOIN pg_inherits AS child ON child.inhparent = p.partrelid
      JOIN pg_class AS c ON c.oid = child.inhrelid
     WHERE p.partrelid = to_regclass($1) AND (child.inhrelid = p.partdefid) = $2";

/// A number may be used again once its table is gone: a table without these columns is another one.
const KEPT: &str = "
    SELECT c.oid, c.relkind
      FROM pg_class AS c
     WHERE c.oid IN (SELECT relation_oid FROM ingest_removed_rows WHERE table_name = $1)
       AND c.relkind IN ('r', 'p')
       AND NOT EXISTS (SELECT FROM pg_inherits
                        WHERE inhrelid = c.oid AND inhparent = to_regclass($1))
       AND 5 = (SELECT count(*) FROM pg_attribute AS a
                 WHERE a.attrelid = c.oid AND NOT a.attisdropped
                   AND a.attname IN ('tenant_id', 'user_key', 'occurred_at', 'event_id', 'meta'))";

/// The leaves of such tables.
fn leaves_of(roots: &str, on_workers: &str) -> String {
    format!(
        "SELECT leaf.oid::regclass::text,
                coalesce(pg_relation_size(leaf.oid), 0) / current_setting('block_size')::int,
                EXISTS (SELECT FROM pg_index AS i
                         WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indnkeyatts >= 2
                           AND (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute AS a
                                 WHERE a.attrelid = leaf.oid AND a.attnum IN (i.indkey[0], i.indkey[1]))
                               = 'tenant_id,user_key'),
                root.oid,
                {on_workers}
           FROM ({roots} OFFSET 0) AS root
          CROSS JOIN LATERAL (
                SELECT t.relid AS oid FROM pg_partition_tree(root.oid::regclass) AS t WHERE t.isleaf
                 UNION SELECT root.oid WHERE root.relkind = 'r') AS leaf
          ORDER BY leaf.oid"
    )
}

/// Reads them.
pub(super) async fn leaves(
    client: &impl GenericClient,
    table: Table,
    which: Which,
) -> Result<Vec<Leaf>, Error> {
    let on_workers = on_workers(client, "leaf.oid").await?;
    let rows = match which {
        Which::Kept => {
            client
                .query(&leaves_of(KEPT, &on_workers), &[&table.as_str()])
                .await?
        }
        Which::Default | Which::Others => {
            let is_default = which == Which::Default;
            client
                .query(
                    &leaves_of(ATTACHED, &on_workers),
                    &[&table.as_str(), &is_default],
                )
                .await?
        }
    };
    Ok(rows
        .iter()
        .map(|row| Leaf {
            name: row.get(0),
            search: match (row.get(4), row.get(2)) {
                (true, _) => Search::Worker,
                (false, true) => Search::Index,
                (false, false) => Search::Blocks(row.get(1)),
            },
            root: row.get(3),
        })
        .collect())
}

/// The names of the tables that a table's detached partitions are by now.
pub(super) async fn kept(client: &impl GenericClient, table: Table) -> Result<Vec<String>, Error> {
    let found = leaves(client, table, Which::Kept).await?;
    Ok(found.into_iter().map(|leaf| leaf.name).collect())
}
