//! Gives the suite's event tables the two columns and the unique index that the service needs,
//! while others read and write them.
//!
//! Invariant: locks that a reader or writer would notice are held for an instant. The index is
//! built on each partition by itself, CONCURRENTLY, and attached to the parent's, which is valid
//! once every partition has its own. The catalog says what is left to do, so an interrupted run is
//! continued by the next one.

use std::time::Duration;

use tokio_postgres::{Client, Error};
use tracing::{info, warn};

use super::ident::{qualified, quoted};
use super::patience::{LOCK_WAIT_MS, Patience, is_contention, run_locked};
use crate::event::table::Table;

/// How long to try for a lock, while long transactions hold it.
const PATIENCE: Duration = Duration::from_secs(600);

/// CREATE INDEX CONCURRENTLY waits for the transactions that are open when it begins. It holds up
/// none until then: its lock conflicts with neither reading nor writing.
const BUILD_WAIT: &str = "10min";

/// The longest name that Postgres does not truncate.
const NAME_BYTES_MAX: usize = 63;

/// A table of the tree: the parent, or a partition at any depth.
#[derive(Clone, Debug)]
struct Member {
    oid: u32,
    schema: String,
    name: String,
    is_partitioned: bool,
    /// The parent in the tree; none for the root.
    above: Option<u32>,
    key: Option<KeyIndex>,
}

/// A unique index on exactly the key's columns.
#[derive(Clone, Debug)]
struct KeyIndex {
    name: String,
    /// An interrupted build leaves one that is not.
    is_valid: bool,
    /// Whether it belongs to an index of the parent.
    is_attached: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Declare the index on a partitioned table, without its partitions.
    Declare { table: String, index: String },
    /// Drop what an interrupted build left.
    Drop { index: String },
    /// Build the index of a partition.
    Build { table: String, index: String },
    /// Make a partition's index a part of its parent's.
    Attach { parent: String, index: String },
}

impl Member {
    fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    fn index_name(&self) -> String {
        let name = format!("{}_ingest_key", self.name);
        match name.len() <= NAME_BYTES_MAX {
            true => name,
            false => format!("ingest_key_{}", self.oid),
        }
    }
}

/// Prepares the event tables that another program has made. Does nothing to a table that is not
/// there or has all.
///
/// # Errors
///
/// Postgres's error for a statement, such as a lock that was not to be had for ten minutes.
pub(super) async fn prepare(client: &Client) -> Result<(), Error> {
    for table in Table::ALL {
        add_columns(client, table).await?;
        let mut last = None;
        while let Some(step) = next(&read(client, table).await?) {
            if last.as_ref() == Some(&step) {
                // It had no effect. The migration says what is wrong with the table.
                warn!(%table, ?step, "the unique index of events cannot be built step by step");
                break;
            }
            take(client, table, &step).await?;
            last = Some(step);
        }
    }
    Ok(())
}

async fn add_columns(client: &Client, table: Table) -> Result<(), Error> {
    let row = client
        .query_one(
            "SELECT c.oid IS NOT NULL AND count(a.attnum) < 2
               FROM (SELECT to_regclass($1)::oid) AS c (oid)
               LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
                    AND a.attname IN ('event_id', 'received_at')
              GROUP BY c.oid",
            &[&table.as_str()],
        )
        .await?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    run_locked(
        client,
        &format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
        &format!(
            "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS event_id uuid,
                 ADD COLUMN IF NOT EXISTS received_at timestamptz"
        ),
        Patience::new(PATIENCE),
    )
    .await
}

/// Reads the tree, parents before their partitions. A table without partitions has none.
async fn read(client: &Client, table: Table) -> Result<Vec<Member>, Error> {
    let rows = client
        .query(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', t.parentrelid::oid,
                    k.name, k.is_valid, k.is_attached
               FROM pg_partition_tree(to_regclass($1)) AS t
               JOIN pg_class AS c ON c.oid = t.relid
               JOIN pg_namespace AS n ON n.oid = c.relnamespace
               LEFT JOIN LATERAL (
                    SELECT x.relname::text AS name,
                           i.indisvalid AND i.indisready AND i.indislive AS is_valid,
                           x.relispartition AS is_attached
                      FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
                     WHERE i.indrelid = c.oid AND i.indisunique
                       AND pg_get_indexdef(i.indexrelid) LIKE '%(tenant_id, occurred_at, event_id)'
                     ORDER BY x.relispartition DESC, 2 DESC, 1
                     LIMIT 1) AS k ON true
              ORDER BY t.level, c.relname",
            &[&table.as_str()],
        )
        .await?;
    let members = rows.iter().map(|row| Member {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        is_partitioned: row.get(3),
        above: row.get(4),
        key: row.get::<_, Option<String>>(5).map(|name| KeyIndex {
            name,
            is_valid: row.get(6),
            is_attached: row.get(7),
        }),
    });
    Ok(members.collect())
}

/// The next step for a tree. Pure.
fn next(members: &[Member]) -> Option<Step> {
    let root = members.first()?;
    // Partitions that others make from now on have the index from the beginning.
    if let Some(member) = members.iter().find(|m| m.is_partitioned && m.key.is_none()) {
        return Some(Step::Declare {
            table: member.qualified(),
            index: member.index_name(),
        });
    }
    for leaf in members.iter().filter(|m| !m.is_partitioned) {
        match &leaf.key {
            Some(key) if key.is_attached || key.is_valid => {}
            Some(key) => {
                let index = qualified(&leaf.schema, &key.name);
                return Some(Step::Drop { index });
            }
            None => {
                return Some(Step::Build {
                    table: leaf.qualified(),
                    index: leaf.index_name(),
                });
            }
        }
    }
    // The deepest first: an index of a partitioned table is valid when all its parts are.
    members.iter().rev().find_map(|member| {
        let key = member.key.as_ref()?;
        let above = members.iter().find(|m| Some(m.oid) == member.above)?;
        let is_done = key.is_attached || member.oid == root.oid;
        (!is_done).then(|| Step::Attach {
            parent: qualified(
                &above.schema,
                &above.key.as_ref().map_or(String::new(), |k| k.name.clone()),
            ),
            index: qualified(&member.schema, &key.name),
        })
    })
}

async fn take(client: &Client, table: Table, step: &Step) -> Result<(), Error> {
    const KEY: &str = "(tenant_id, occurred_at, event_id)";
    match step {
        Step::Declare { table, index } => {
            let index = quoted(index);
            let sql = format!("CREATE UNIQUE INDEX {index} ON ONLY {table} {KEY}");
            briefly(client, &sql).await
        }
        Step::Attach { parent, index } => {
            let sql = format!("ALTER INDEX {parent} ATTACH PARTITION {index}");
            briefly(client, &sql).await
        }
        Step::Drop { index } => {
            warn!(%table, index, "dropping what an interrupted build left behind");
            let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
            at_leisure(client, &sql).await
        }
        Step::Build { table: leaf, index } => {
            info!(%table, partition = leaf, "building the unique index of events, while the table is in use");
            let index = quoted(index);
            let sql = format!("CREATE UNIQUE INDEX CONCURRENTLY {index} ON {leaf} {KEY}");
            at_leisure(client, &sql).await
        }
    }
}

/// Runs a statement whose locks others would queue behind.
async fn briefly(client: &Client, sql: &str) -> Result<(), Error> {
    let patience = Patience::new(PATIENCE);
    loop {
        match client.batch_execute(sql).await {
            Err(error) if is_contention(&error) && patience.pause().await => {}
            done => return done,
        }
    }
}

/// Runs a statement that holds no session up, however long it waits.
async fn at_leisure(client: &Client, sql: &str) -> Result<(), Error> {
    let set = format!("SET lock_timeout = '{BUILD_WAIT}'");
    client.batch_execute(&set).await?;
    let done = client.batch_execute(sql).await;
    let reset = format!("SET lock_timeout = {LOCK_WAIT_MS}");
    done.and(client.batch_execute(&reset).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(oid: u32, name: &str, above: Option<u32>, is_partitioned: bool) -> Member {
        Member {
            oid,
            schema: "s".to_owned(),
            name: name.to_owned(),
            is_partitioned,
            above,
            key: None,
        }
    }

    fn key(name: &str, is_valid: bool, is_attached: bool) -> Option<KeyIndex> {
        Some(KeyIndex {
            name: name.to_owned(),
            is_valid,
            is_attached,
        })
    }

    #[test]
    fn partitions_are_indexed_one_by_one_and_attached_from_the_deepest_up() {
        let mut tree = vec![
            member(1, "root", None, true),
            member(2, "sub", Some(1), true),
            member(3, "a", Some(1), false),
            member(4, "b", Some(2), false),
        ];
        let mut seen = Vec::new();
        tree[3].key = key("b_ingest_key", false, false);
        while let Some(step) = next(&tree) {
            seen.push(format!("{step:?}"));
            assert!(seen.len() < 20, "{seen:#?}");
            match step {
                Step::Declare { index, .. } | Step::Build { index, .. } => {
                    let found = tree.iter_mut().find(|m| m.index_name() == index);
                    if let Some(member) = found {
                        member.key = key(&index, !member.is_partitioned, false);
                    }
                }
                Step::Drop { .. } => tree[3].key = None,
                Step::Attach { index, .. } => {
                    for member in &mut tree {
                        let is_it = |k: &KeyIndex| qualified("s", &k.name) == index;
                        if member.key.as_ref().is_some_and(is_it) {
                            member.key = key(&member.index_name(), true, true);
                        }
                    }
                }
            }
        }
        let short: Vec<&str> = seen
            .iter()
            .map(|step| step.split(' ').next().unwrap_or_default())
            .collect();
        assert_eq!(
            short,
            [
                "Declare", "Declare", "Build", "Drop", "Build", "Attach", "Attach", "Attach"
            ]
        );
        assert!(seen[5].contains("sub_ingest_key") && seen[5].contains("b_ingest_key"));
        // A table without partitions is not in any tree.
        assert_eq!(next(&[]), None);
    }
}
