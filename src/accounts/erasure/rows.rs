//! Removes a user's rows from the event tables, or what ties them to the user.
//!
//! Invariant: a step removes rows, books them and marks their days in one transaction. After a step
//! there is a pause as long as it took: the rows of hot partitions are found by reading them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use super::begin::Subject;
use super::leaf::{Leaf, Which, kept, leaves};
use crate::accounts::changes::{self, ChangedDays};
use crate::accounts::removed::{self, Kind, Reason};
use crate::event::row::Kind as ColumnKind;
use crate::event::table::Table;

/// Rows of a step that finds them by an index.
const ROWS_MAX: i64 = 1_000;

/// Blocks of a step that reads them all: 16 MiB.
const BLOCKS_MAX: i64 = 2_048;

/// The shortest pause.
const PAUSE_LEAST: Duration = Duration::from_millis(2);

/// The longest pause: a step that waited for a lock was no load.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// What is done with the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasing {
    /// They are removed.
    Rows,
    /// They stay, without what ties them to the user.
    Ties,
}

/// What a user has in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows from before the time of the erasure.
    pub rows: i64,
    /// Rows from after it, which stay.
    pub later: i64,
}

/// The tables that retention has detached and kept: a user's rows are looked for in them as well.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn detached(client: &Client) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for table in Table::ALL {
        names.extend(relations(client, table).await?.into_iter().skip(1));
    }
    Ok(names)
}

/// A table, and the tables that were its partitions.
async fn relations(client: &Client, table: Table) -> Result<Vec<String>> {
    let kept = kept(client, table).await;
    let kept = kept.with_context(|| format!("cannot read the detached partitions of {table}"))?;
    Ok([table.to_string()].into_iter().chain(kept).collect())
}

/// Counts a user's rows in a table, and in the tables that were its partitions.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn count(client: &Client, table: Table, subject: &Subject) -> Result<Counts> {
    let mut counts = Counts::default();
    for name in relations(client, table).await? {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE occurred_at < $3), count(*) FILTER (WHERE occurred_at >= $3)
               FROM {name} WHERE tenant_id = $1 AND user_key = $2"
        );
        let parameters: [&(dyn ToSql + Sync); 3] = [&subject.tenant, &subject.key, &subject.before];
        let row = client
            .query_one(&sql, &parameters)
            .await
            .with_context(|| format!("cannot count the user's rows in {name}"))?;
        counts.rows += row.get::<_, i64>(0);
        counts.later += row.get::<_, i64>(1);
    }
    Ok(counts)
}

/// The anonymous ids that stand on a user's rows, hashed, in hexadecimal digits.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn anonymous_ids(client: &Client, subject: &Subject) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for table in Table::ALL {
        for name in relations(client, table).await? {
            all.push(format!(
                "SELECT meta ->> 'anonymous_id_hash' AS id FROM {name}
                  WHERE tenant_id = $1 AND user_key = $2 AND occurred_at < $3"
            ));
        }
    }
    let all = all.join(" UNION ");
    let sql = format!("SELECT id FROM ({all}) AS found WHERE id ~ '^[0-9a-f]{{64}}$' ORDER BY id");
    let parameters: [&(dyn ToSql + Sync); 3] = [&subject.tenant, &subject.key, &subject.before];
    let rows = client
        .query(&sql, &parameters)
        .await
        .context("cannot look for anonymous ids on the user's rows")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What was erased in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    pub rows: i64,
    /// The anonymous ids that stood on the rows, hashed, in hexadecimal digits.
    pub anonymous: BTreeSet<String>,
}

/// Erases a user's rows in a table, and in the tables that were its partitions.
///
/// # Errors
///
/// When Postgres refuses or is unreachable. The steps until then hold; run it again.
pub async fn erase(
    client: &mut Client,
    table: Table,
    subject: &Subject,
    erasing: Erasing,
) -> Result<Erased> {
    let mut eraser = Eraser {
        table,
        subject,
        erasing,
        entry: None,
        erased: Erased::default(),
    };
    // A row that leaves the DEFAULT partition while that is searched is in one of the others by the
    // time that those are read; and a partition that is detached meanwhile is among the kept ones.
    for which in [Which::Default, Which::Others, Which::Kept] {
        let found = leaves(&*client, table, which)
            .await
            .with_context(|| format!("cannot read the partitions of {table}"))?;
        for leaf in found {
            eraser
                .erase_in(client, &leaf)
                .await
                .with_context(|| format!("cannot erase rows of {}", leaf.name))?;
        }
    }
    Ok(eraser.erased)
}

struct Eraser<'s> {
    table: Table,
    subject: &'s Subject,
    erasing: Erasing,
    entry: Option<i64>,
    erased: Erased,
}

impl Eraser<'_> {
    async fn erase_in(&mut self, client: &mut Client, leaf: &Leaf) -> Result<()> {
        if leaf.has_index {
            let rows = format!(
                "ctid = ANY (ARRAY(SELECT ctid FROM {} WHERE {} LIMIT {ROWS_MAX}))",
                leaf.name, WHERE
            );
            while self.step(client, leaf, &rows).await? > 0 {}
            return Ok(());
        }
        let mut from = 0;
        while from < leaf.blocks {
            let to = from + BLOCKS_MAX;
            let rows = format!("ctid >= '({from},0)' AND ctid < '({to},0)' AND {WHERE}");
            self.step(client, leaf, &rows).await?;
            from = to;
        }
        Ok(())
    }

    /// Erases the rows that a condition selects. Returns how many.
    async fn step(&mut self, client: &mut Client, leaf: &Leaf, rows: &str) -> Result<i64> {
        let started = Instant::now();
        const ANONYMOUS: &str = "meta ->> 'anonymous_id_hash'";
        let Subject {
            tenant,
            key,
            before,
        } = self.subject;
        let parameters: [&(dyn ToSql + Sync); 3] = [tenant, key, before];
        let tx = client.transaction().await?;
        let (gone, ids) = match self.erasing {
            Erasing::Rows => {
                let sql = format!(
                    "DELETE FROM {} WHERE {rows} RETURNING occurred_at, event_id, {ANONYMOUS}",
                    leaf.name
                );
                let gone = tx.query(&sql, &parameters).await?;
                let ids = gone.iter().map(|row| row.get(2)).collect();
                (gone, ids)
            }
            Erasing::Ties => {
                let sql = format!("SELECT {ANONYMOUS} FROM {} WHERE {rows}", leaf.name);
                let ids: Vec<Option<String>> = match tx.query(&sql, &parameters).await? {
                    rows if rows.is_empty() => return self.pause(started, 0).await,
                    rows => rows.iter().map(|row| row.get(0)).collect(),
                };
                let sql = format!(
                    "UPDATE {} SET {} WHERE {rows} RETURNING occurred_at, event_id",
                    leaf.name,
                    self.untied()
                );
                (tx.query(&sql, &parameters).await?, ids)
            }
        };
        let count = i64::try_from(gone.len()).unwrap_or(i64::MAX);
        if count > 0 {
            if !self.is_removed(&tx, leaf).await? {
                self.book(&tx, &gone).await?;
            }
            tx.commit().await?;
            self.erased.rows += count;
            let is_hash = |id: &String| id.len() == 64 && hex::decode(id).is_ok();
            self.erased
                .anonymous
                .extend(ids.into_iter().flatten().filter(is_hash));
        } else {
            tx.rollback().await?;
        }
        self.pause(started, count).await
    }

    /// Whether the rows of a leaf are in the books as removed, with its partition: then they have left
    /// the accounts, and no reader derives anything from them any more. Asked for after the rows were
    /// touched, as from then on nobody detaches or counts what they are in.
    async fn is_removed(&self, tx: &Transaction<'_>, leaf: &Leaf) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM ingest_removed_rows
                                   WHERE relation_oid = $1 AND row_count IS NOT NULL)
                      AND NOT EXISTS (SELECT FROM pg_inherits
                                       WHERE inhrelid = $1 AND inhparent = to_regclass($2))";
        let parameters: [&(dyn ToSql + Sync); 2] = [&leaf.root, &self.table.as_str()];
        Ok(tx.query_one(sql, &parameters).await?.get(0))
    }

    /// Leaves the server to others for as long as the step took.
    async fn pause(&self, started: Instant, count: i64) -> Result<i64> {
        tokio::time::sleep(started.elapsed().clamp(PAUSE_LEAST, PAUSE_MOST)).await;
        Ok(count)
    }

    async fn book(&mut self, tx: &Transaction<'_>, gone: &[Row]) -> Result<()> {
        if self.erasing == Erasing::Rows {
            // Rows without an event id were never in the accounts.
            let ids = gone
                .iter()
                .filter(|row| row.get::<_, Option<Uuid>>(1).is_some());
            let booked = i64::try_from(ids.count()).unwrap_or(i64::MAX);
            let reason = Reason {
                table: self.table.as_str(),
                kind: Kind::Erasure,
                words: "of a user who was erased",
                tenant: Some(self.subject.tenant),
            };
            removed::add(tx, &mut self.entry, &reason, booked).await?;
        }
        let mut times: Vec<_> = gone.iter().map(|row| row.get(0)).collect();
        times.sort_unstable();
        let changed = ChangedDays::of(times.into_iter().map(|at| (self.subject.tenant, at)));
        let place = ["$3", "$4", "$4", "$5"];
        let mark = changes::mark(["$1", "$2"], place, "(VALUES (true)) AS always");
        let parameters: [&(dyn ToSql + Sync); 5] = [
            &changed.tenants,
            &changed.days,
            &self.table.as_str(),
            &Uuid::nil(),
            &(self.table as i16),
        ];
        tx.execute(&mark, &parameters).await?;
        Ok(())
    }

    /// The columns without what ties a row to its user: hashes of ids stand in JSON at any depth, under
    /// names that only this service gives.
    fn untied(&self) -> String {
        let columns = self.table.columns().iter();
        let set = columns.filter_map(|column| match (column.name, column.kind) {
            (name @ ("user_key" | "session_id"), _) => Some(format!("{name} = NULL")),
            (name, ColumnKind::Json) => Some(format!(
                r#"{name} = regexp_replace({name}::text, '"((?:user|anonymous|session)_id_hash)": "[^"]*"', '"\1": null', 'g')::jsonb"#
            )),
            _ => None,
        });
        set.collect::<Vec<_>>().join(", ")
    }
}

/// The user's rows from before the time.
const WHERE: &str = "tenant_id = $1 AND user_key = $2 AND occurred_at < $3";
