//! What hangs on the event tables and every row pays for: foreign keys, indexes, triggers.
//!
//! Sizes are those of the disk, and reads those that PostgreSQL has counted (`pg_stat_user_indexes`).

use std::collections::BTreeMap;

use anyhow::Result;
use tokio_postgres::{Client, Row};

use super::diagnosis::{Diagnosis, Mend};
use super::probe::{rows, size};
use crate::event::table::Table;
use crate::finding::{Finding, Severity};
use crate::partitions::indexes::secondary_indexes;

/// The parents and all their partitions. Parameter 1 has the tables' names.
const TREE: &str = "
    WITH tree AS (
        SELECT wanted.name AS table_name, t.relid, t.level
          FROM unnest($1::text[]) AS wanted (name)
         CROSS JOIN LATERAL pg_partition_tree(to_regclass(wanted.name)) AS t)";

/// Those of the parents; copies on partitions have a parent of their own. What is dropped during the
/// query has no definition, here and below.
const FOREIGN_KEYS: &str = "
    SELECT tree.table_name, quote_ident(c.conname), c.conrelid::regclass::text,
           definition
      FROM pg_constraint AS c JOIN tree ON tree.relid IN (c.conrelid, c.confrelid)
     CROSS JOIN LATERAL pg_get_constraintdef(c.oid) AS definition
     WHERE definition IS NOT NULL AND c.contype = 'f' AND c.conparentid = 0
     ORDER BY 1, 3, 2";

const TRIGGERS: &str = "
    SELECT tree.table_name, quote_ident(t.tgname), t.tgrelid::regclass::text,
           (t.tgtype & 1) = 1
      FROM pg_trigger AS t JOIN tree ON tree.relid = t.tgrelid
     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D'
     ORDER BY 1, 3, 2";

/// Indexes that belong to no other one: those of the parents, with all copies, and those of single
/// partitions.
const INDEXES: &str = r"
    SELECT tree.table_name, i.indexrelid::regclass::text, i.indrelid::regclass::text,
           tree.level = 0, i.indisunique, i.indisprimary,
           i.indisvalid AND i.indisready AND i.indislive, m.amname::text,
           regexp_replace(
               substr(d.def, strpos(d.def, ' USING ' || m.amname || ' (') + length(' USING ')),
               ' WITH \([^)]*\)', ''),
           family.bytes, family.scans,
           EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid),
           (SELECT quote_ident(c.conname) FROM pg_constraint AS c
             WHERE c.conindid = i.indexrelid AND c.conrelid = i.indrelid AND c.contype IN ('p', 'u', 'x')
             LIMIT 1)
      FROM pg_index AS i
      JOIN tree ON tree.relid = i.indrelid
      JOIN pg_class AS x ON x.oid = i.indexrelid
      JOIN pg_am AS m ON m.oid = x.relam
     CROSS JOIN LATERAL pg_get_indexdef(i.indexrelid) AS d (def)
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(pg_relation_size(t.relid)), 0)::bigint,
                  coalesce(sum(s.idx_scan), 0)::bigint
             FROM (SELECT relid::oid FROM pg_partition_tree(i.indexrelid)
                    UNION SELECT i.indexrelid) AS t (relid)
             LEFT JOIN pg_stat_user_indexes AS s ON s.indexrelid = t.relid) AS family (bytes, scans)
     WHERE d.def IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhrelid = i.indexrelid)
     ORDER BY 1, 3, 2";

/// What an index of this kind costs a row.
const COST: &str = "each new row updates it as well, while its partition is hot and in small pieces; \
                    all together make a row cost PostgreSQL two to four times the CPU";
const COST_OF_GIN: &str = "a GIN index gets an entry for every key and value of each new row: of all \
                           indexes it costs the most CPU and WAL, and its pending list makes single \
                           batches slow; all together make a row cost two to four times the CPU";

pub(super) async fn look(client: &Client) -> Result<Vec<Diagnosis>> {
    let tables = Table::ALL.map(Table::as_str);
    let tables: &[&str] = &tables;
    let ask = async |sql: &str| rows(client, &format!("{TREE}{sql}"), &[&tables]).await;
    let mut found: Vec<Diagnosis> = ask(FOREIGN_KEYS).await?.iter().map(foreign_key).collect();
    found.extend(ask(TRIGGERS).await?.iter().map(trigger));
    let indexes = ask(INDEXES).await?;
    let indexes: Vec<Index> = indexes.iter().map(Index::of).collect();
    found.extend(indexes.iter().filter_map(Index::on_parent));
    found.extend(indexes.iter().filter_map(Index::invalid));
    found.extend(on_partitions(&indexes));
    Ok(found)
}

fn table_of(row: &Row) -> Option<Table> {
    let name: String = row.get(0);
    Table::ALL.into_iter().find(|table| table.as_str() == name)
}

fn about(table: Option<Table>, finding: Finding, mend: Mend) -> Diagnosis {
    Diagnosis {
        finding: Finding { table, ..finding },
        mend,
    }
}

fn foreign_key(row: &Row) -> Diagnosis {
    let (name, on, definition): (String, String, String) = (row.get(1), row.get(2), row.get(3));
    let finding = Finding::new(
        Severity::Note,
        "foreign_key",
        format!("{on} has the foreign key {name}: {definition}"),
        "each row is looked up in the other table and locks the row that it finds there; an event \
         without its row is set aside, and partitions cannot be detached without looking through both",
        "drop it if nothing relies on it; tenants of events are checked before they are accepted",
    );
    let sql = format!("ALTER TABLE {on} DROP CONSTRAINT {name};");
    about(table_of(row), finding, Mend::Sql(vec![sql]))
}

fn trigger(row: &Row) -> Diagnosis {
    let (name, on, each_row): (String, String, bool) = (row.get(1), row.get(2), row.get(3));
    let how_often = if each_row { "each row" } else { "each batch" };
    let finding = Finding::new(
        Severity::Note,
        "trigger",
        format!("{on} has the trigger {name}, for {how_often}"),
        "COPY runs it within the transaction that stores a batch: its time is added to every batch, \
         and a row that it refuses or leaves out goes to quarantine",
        "drop it, or disable it while it is not needed",
    );
    let sql = format!("DROP TRIGGER {name} ON {on};");
    about(table_of(row), finding, Mend::Sql(vec![sql]))
}

/// An index with its copies on partitions.
#[derive(Clone, Debug)]
struct Index {
    table: Option<Table>,
    name: String,
    on: String,
    is_of_parent: bool,
    is_unique: bool,
    is_primary: bool,
    is_valid: bool,
    method: String,
    shape: String,
    bytes: i64,
    scans: i64,
    is_being_built: bool,
    /// The constraint that the index belongs to: then only dropping the constraint removes it.
    constraint: Option<String>,
}

impl Index {
    fn of(row: &Row) -> Self {
        Self {
            table: table_of(row),
            name: row.get(1),
            on: row.get(2),
            is_of_parent: row.get(3),
            is_unique: row.get(4),
            is_primary: row.get(5),
            is_valid: row.get(6),
            method: row.get(7),
            shape: row.get(8),
            bytes: row.get(9),
            scans: row.get(10),
            is_being_built: row.get(11),
            constraint: row.get(12),
        }
    }

    fn is_key(&self) -> bool {
        let inside = self.shape.split(['(', ')']).nth(1).unwrap_or_default();
        let mut columns: Vec<&str> = inside
            .split(',')
            .filter_map(|part| part.split_whitespace().next())
            .collect();
        columns.sort_unstable();
        self.is_unique && columns == ["event_id", "occurred_at", "tenant_id"]
    }

    fn cost(&self) -> &'static str {
        match self.method.as_str() {
            "gin" => COST_OF_GIN,
            _ => COST,
        }
    }

    /// The statement that removes it; `how` is `DROP INDEX`, with or without CONCURRENTLY.
    fn drop_sql(&self, how: &str) -> String {
        let Self { name, on, .. } = self;
        match &self.constraint {
            Some(constraint) => format!("ALTER TABLE {on} DROP CONSTRAINT {constraint};"),
            None => format!("{how} {name};"),
        }
    }

    fn used(&self) -> String {
        used(self.bytes, self.scans)
    }

    /// An index that every partition gets, hot ones among them.
    fn on_parent(&self) -> Option<Diagnosis> {
        let Self { name, on, .. } = self;
        if !self.is_of_parent || self.is_key() || self.is_primary {
            return None;
        }
        if self.is_unique {
            let finding = Finding::new(
                Severity::Degraded,
                "unique_index",
                format!(
                    "{on} has the unique index {name} on {}: {}",
                    self.shape,
                    self.used()
                ),
                "of two different events with the same values there, the second one is set aside",
                "drop it, unless that is meant",
            );
            let sql = self.drop_sql("DROP INDEX");
            return Some(about(self.table, finding, Mend::Sql(vec![sql])));
        }
        let finding = Finding::new(
            Severity::Note,
            "parent_indexes",
            format!(
                "{on} has the index {name} ({}), which every partition gets: {}",
                self.shape,
                self.used()
            ),
            self.cost(),
            "remove it with `recsys-ingest adopt --lean`: sealing builds what queries need in bulk, \
             once the time of a partition is over",
        );
        let sql = self.drop_sql("DROP INDEX");
        Some(about(self.table, finding, Mend::Sql(vec![sql])))
    }

    /// What a build that broke off has left.
    fn invalid(&self) -> Option<Diagnosis> {
        let Self { name, on, .. } = self;
        if self.is_of_parent || self.is_valid || self.is_being_built {
            return None;
        }
        let finding = Finding::new(
            Severity::Note,
            "index_invalid",
            format!("{on} has the invalid index {name} ({})", size(self.bytes)),
            "a build of it broke off: rows update it, and no query may use it",
            "drop it; sealing builds those that it needs again by itself",
        );
        let sql = self.drop_sql("DROP INDEX CONCURRENTLY");
        Some(about(self.table, finding, Mend::Sql(vec![sql])))
    }

    /// Whether it is on a partition alone, and sealing would not build it.
    fn is_surplus(&self) -> bool {
        let wanted = self.table.map_or(&[][..], secondary_indexes);
        let is_wanted = wanted.iter().any(|wanted| wanted.shape == self.shape);
        !self.is_of_parent && self.is_valid && !self.is_key() && !self.is_primary && !is_wanted
    }
}

fn used(bytes: i64, scans: i64) -> String {
    let read = match scans {
        0 => "never read since the statistics began".to_owned(),
        1 => "read once".to_owned(),
        scans => format!("read {scans} times"),
    };
    format!("{} on disk, {read}", size(bytes))
}

/// Indexes of single partitions that sealing did not build, those of one shape together.
fn on_partitions(indexes: &[Index]) -> Vec<Diagnosis> {
    let mut by_shape: BTreeMap<(Option<Table>, &str), Vec<&Index>> = BTreeMap::new();
    for index in indexes.iter().filter(|index| index.is_surplus()) {
        let alike = by_shape.entry((index.table, &index.shape)).or_default();
        alike.push(index);
    }
    let told = |((table, shape), alike): ((Option<Table>, &str), Vec<&Index>)| {
        let bytes = alike.iter().map(|index| index.bytes).sum();
        let scans = alike.iter().map(|index| index.scans).sum();
        let first = alike[0];
        let finding = Finding::new(
            Severity::Note,
            "partition_index",
            format!(
                "{} partitions have an index on {shape} that sealing does not build, {} the first of them: {}",
                alike.len(),
                first.name,
                used(bytes, scans)
            ),
            first.cost(),
            "drop those that no query needs",
        );
        let sql = alike
            .iter()
            .map(|index| index.drop_sql("DROP INDEX CONCURRENTLY"));
        about(table, finding, Mend::Sql(sql.collect()))
    };
    by_shape.into_iter().map(told).collect()
}
