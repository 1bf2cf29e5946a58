//! The tables that hold an event table's rows, and how their rows of one user are found.

use tokio_postgres::{Client, Error};

use crate::event::table::Table;

/// A table with rows.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// As statements name it.
    pub(super) name: String,
    pub(super) blocks: i64,
    /// It has an index that begins with tenant and user.
    pub(super) has_index: bool,
}

/// Which leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those of the DEFAULT partition, from which rows move to others.
    Default,
    /// All others, with those that are being detached.
    Others,
}

const LEAVES: &str = "
    SELECT leaf.oid::regclass::text,
           pg_relation_size(leaf.oid) / current_setting('block_size')::int,
           EXISTS (SELECT FROM pg_index AS i
                    WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indnkeyatts >= 2
                      AND (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute AS a
                            WHERE a.attrelid = leaf.oid AND a.attnum IN (i.indkey[0], i.indkey[1]))
                          = 'tenant_id,user_key')
      FROM pg_partitioned_table AS p
      JOIN pg_inherits AS child ON child.inhparent = p.partrelid
     CROSS JOIN LATERAL (
           SELECT t.relid AS oid FROM pg_partition_tree(child.inhrelid::regclass) AS t WHERE t.isleaf) AS leaf
     WHERE p.partrelid = to_regclass($1) AND (child.inhrelid = p.partdefid) = $2
     ORDER BY leaf.oid";

/// Reads them.
pub(super) async fn leaves(
    client: &Client,
    table: Table,
    which: Which,
) -> Result<Vec<Leaf>, Error> {
    let is_default = which == Which::Default;
    let rows = client
        .query(LEAVES, &[&table.as_str(), &is_default])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Leaf {
            name: row.get(0),
            blocks: row.get(1),
            has_index: row.get(2),
        })
        .collect())
}
