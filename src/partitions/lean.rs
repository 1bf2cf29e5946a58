//! Removes from the parents what makes hot partitions expensive: indexes other than the keys, and an
//! empty DEFAULT partition.
//!
//! Invariant: keys, unique indexes, foreign keys and rows are never removed. A DEFAULT partition is
//! looked into again under the lock under which it is dropped.
//!
//! One transaction for a table, under ACCESS EXCLUSIVE for the few milliseconds that it takes: an
//! index of a parent cannot be dropped CONCURRENTLY. Partitions whose time is over lose the indexes
//! as well; sealing builds them again, on each partition by itself.

use std::time::Duration;

use tokio_postgres::Client;

use super::catalog::{Bound, begin, end, read_parent, read_partitions};
use super::error::Error;
use crate::event::table::Table;
use crate::postgres::ident::qualified;
use crate::postgres::patience::{Patience, begin_locked, is_lock_missed};

/// How long to try for the locks while long transactions hold them.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a parent has in addition to its keys.
#[derive(Clone, Debug)]
pub struct Surplus {
    table: Table,
    parent: String,
    /// Indexes with their definitions.
    indexes: Vec<(String, String)>,
    default: Option<DefaultPartition>,
}

#[derive(Clone, Debug)]
struct DefaultPartition {
    name: String,
    qualified: String,
    has_rows: bool,
}

/// What [`Surplus::remove`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Indexes that were dropped from the parent, and with it from its partitions.
    pub indexes: usize,
    /// Whether the DEFAULT partition was dropped.
    pub default: bool,
}

impl Surplus {
    /// Reads what a table's parent has in addition to its keys.
    ///
    /// # Errors
    ///
    /// When the catalog cannot be read, or there is no such table by time.
    pub async fn read(client: &mut Client, table: Table) -> Result<Self, Error> {
        let tx = begin(client, table, true).await?;
        let parent = read_parent(&tx, table).await?;
        let partitions = read_partitions(&tx, &parent).await?;
        let failed = |source| Error::Postgres {
            doing: "read the indexes",
            table,
            source,
        };
        let rows = tx
            .query(
                "SELECT x.relname::text, pg_get_indexdef(i.indexrelid)
                   FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
                  WHERE i.indrelid = $1 AND NOT i.indisunique
                  ORDER BY 1",
                &[&parent.oid],
            )
            .await
            .map_err(failed)?;
        let index = |row: &tokio_postgres::Row| {
            let (name, definition): (String, Option<String>) = (row.get(0), row.get(1));
            // Without a definition, the index was dropped during the query.
            Some((qualified(&parent.schema, &name), definition?))
        };
        let indexes = rows.iter().filter_map(index).collect();
        let mut default = None;
        if let Some(found) = partitions.into_iter().find(|p| p.bound == Bound::Default) {
            let qualified = qualified(&found.schema, &found.name);
            let sql = format!("SELECT EXISTS (SELECT FROM {qualified})");
            let row = tx.query_one(&sql, &[]).await.map_err(failed)?;
            default = Some(DefaultPartition {
                name: found.name,
                qualified,
                has_rows: row.get(0),
            });
        }
        end(tx, table).await?;
        Ok(Self {
            table,
            parent: qualified(&parent.schema, table.as_str()),
            indexes,
            default,
        })
    }

    /// The table that it is about.
    pub fn table(&self) -> Table {
        self.table
    }

    /// The DEFAULT partition if it holds rows, and therefore stays.
    pub fn kept_default(&self) -> Option<&str> {
        let default = self.default.as_ref().filter(|default| default.has_rows);
        default.map(|default| default.name.as_str())
    }

    fn empty_default(&self) -> Option<&DefaultPartition> {
        self.default.as_ref().filter(|default| !default.has_rows)
    }

    /// Whether there is nothing to remove.
    pub fn is_none(&self) -> bool {
        self.indexes.is_empty() && self.empty_default().is_none()
    }

    fn lock(&self) -> String {
        format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", self.parent)
    }

    /// What removes it, as a script. Empty if there is nothing to remove.
    pub fn sql(&self) -> Vec<String> {
        if self.is_none() {
            return Vec::new();
        }
        let mut lines = vec!["BEGIN;".to_owned(), format!("{};", self.lock())];
        for (name, definition) in &self.indexes {
            lines.push(format!("DROP INDEX {name};  -- {definition}"));
        }
        if let Some(default) = self.empty_default() {
            lines.push(format!("DROP TABLE {};  -- empty", default.qualified));
        }
        lines.push("COMMIT;".to_owned());
        lines
    }

    /// Removes it. Tries for ten minutes to get the locks, without holding a session up for longer
    /// than a tenth of a second.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if the locks were not to be had; nothing was changed then.
    pub async fn remove(&self, client: &Client) -> Result<Removed, Error> {
        let table = self.table;
        let failed = |source| Error::Postgres {
            doing: "remove what is beside the key",
            table,
            source,
        };
        if let Some(found) = self.empty_default() {
            // Rows that were moved out of it may not have left its file, and below it is looked
            // through under the lock. Without the right to VACUUM that takes longer.
            drop(
                client
                    .batch_execute(&format!("VACUUM {}", found.qualified))
                    .await,
            );
        }
        let patience = Patience::new(PATIENCE);
        loop {
            match begin_locked(client, &self.lock()).await {
                Ok(()) => break,
                Err(source) if is_lock_missed(&source) => {
                    if !patience.pause().await {
                        return Err(Error::Busy { table, source });
                    }
                }
                Err(source) => return Err(failed(source)),
            }
        }
        let removing = async {
            for (name, _) in &self.indexes {
                client
                    .batch_execute(&format!("DROP INDEX IF EXISTS {name}"))
                    .await?;
            }
            let mut default = false;
            if let Some(found) = self.empty_default() {
                let sql = format!("SELECT EXISTS (SELECT FROM {})", found.qualified);
                if !client.query_one(&sql, &[]).await?.get::<_, bool>(0) {
                    client
                        .batch_execute(&format!("DROP TABLE {}", found.qualified))
                        .await?;
                    note_removed(client, table, &found.name).await?;
                    default = true;
                }
            }
            client.batch_execute("COMMIT").await?;
            Ok::<_, tokio_postgres::Error>(Removed {
                indexes: self.indexes.len(),
                default,
            })
        };
        let removed = removing.await;
        if removed.is_err() {
            drop(client.batch_execute("ROLLBACK").await);
        }
        removed.map_err(failed)
    }
}

async fn note_removed(
    client: &Client,
    table: Table,
    partition: &str,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "INSERT INTO ingest_partition_log (table_name, partition_name, action, instance, reason)
             VALUES ($1, $2, 'drop', nullif(current_setting('application_name'), ''),
                     'an empty DEFAULT partition')",
            &[&table.as_str(), &partition],
        )
        .await?;
    Ok(())
}
