//! Removes a user's rows from the event tables, or what ties them to the user.
//!
//! Invariant: a step removes rows, books them and marks their days in one transaction. Steps are short,
//! with pauses between them (`pace`): the rows of hot partitions are found by reading them.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use super::begin::Subject;
use super::leaf::{Leaf, Search, Which, kept, leaves};
use super::pace::Pace;
use crate::accounts::changes::{self, ChangedDays};
use crate::accounts::removed::{self, Kind, Reason};
use crate::event::row::Kind as ColumnKind;
use crate::event::table::Table;

/// What is done with the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasing {
    /// They are removed.
    Rows,
    /// They stay, without what ties them to the user.
    Ties,
}

/// What a user has in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows from before the time of the erasure.
    pub rows: i64,
    /// Rows from after it, which stay.
    pub later: i64,
    /// The anonymous ids that stand on the rows from before, hashed, in hexadecimal digits.
    pub anonymous: BTreeSet<String>,
}

/// The tables that retention has detached and kept: a user's rows are looked for in them as well.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn detached(client: &Client) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for table in Table::ALL {
        let kept = kept(client, table).await;
        names.extend(
            kept.with_context(|| format!("cannot read the detached partitions of {table}"))?,
        );
    }
    Ok(names)
}

/// Looks for a user's rows in a table, and in the tables that were its partitions, in the steps of an
/// erasure.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn find(client: &Client, table: Table, subject: &Subject) -> Result<Found> {
    let mut found = Found::default();
    let mut pace = Pace::of_blocks();
    // A row that moves out of the DEFAULT partition during that may be counted twice, and none is missed.
    for which in [Which::Default, Which::Others, Which::Kept] {
        for leaf in all_leaves(client, table, which).await? {
            let (mut from, end) = match leaf.search {
                Search::Blocks(count) => (0, count),
                Search::Index | Search::Worker => (0, 1),
            };
            while from < end {
                let (to, rows) = match leaf.search {
                    Search::Blocks(_) => blocks(from, pace.size()),
                    Search::Index | Search::Worker => (end, "true".to_owned()),
                };
                let started = Instant::now();
                find_in(client, &leaf, &rows, subject, &mut found)
                    .await
                    .with_context(|| format!("cannot look for the user's rows in {}", leaf.name))?;
                tokio::time::sleep(pace.after(started.elapsed())).await;
                from = to;
            }
        }
    }
    Ok(found)
}

/// Adds what a user has among the rows that a condition selects.
async fn find_in(
    client: &Client,
    leaf: &Leaf,
    rows: &str,
    subject: &Subject,
    found: &mut Found,
) -> Result<()> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE occurred_at < $3), count(*) FILTER (WHERE occurred_at >= $3),
                coalesce(array_agg(DISTINCT {ANONYMOUS}) FILTER (WHERE occurred_at < $3), '{{}}')
           FROM {} WHERE {rows} AND {THEIRS}",
        leaf.name
    );
    let parameters: [&(dyn ToSql + Sync); 3] = [&subject.tenant, &subject.key, &subject.before];
    let row = client.query_one(&sql, &parameters).await?;
    found.rows += row.get::<_, i64>(0);
    found.later += row.get::<_, i64>(1);
    found.anonymous.extend(hashes(row.get(2)));
    Ok(())
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
        rows: Pace::of_rows(),
        blocks: Pace::of_blocks(),
        entry: None,
        erased: Erased::default(),
    };
    // A row that leaves the DEFAULT partition while that is searched is in one of the others by the
    // time that those are read; and a partition that is detached during that is among the kept ones.
    for which in [Which::Default, Which::Others, Which::Kept] {
        for leaf in all_leaves(client, table, which).await? {
            eraser
                .erase_in(client, &leaf)
                .await
                .with_context(|| format!("cannot erase rows of {}", leaf.name))?;
        }
    }
    Ok(eraser.erased)
}

async fn all_leaves(client: &Client, table: Table, which: Which) -> Result<Vec<Leaf>> {
    let found = leaves(client, table, which).await;
    found.with_context(|| format!("cannot read the partitions of {table}"))
}

/// The blocks of the next step: its end, and the condition for its rows.
fn blocks(from: i64, size: i64) -> (i64, String) {
    let to = from + size;
    (to, format!("ctid >= '({from},0)' AND ctid < '({to},0)'"))
}

/// Those of the ids that are hashes.
fn hashes(ids: Vec<Option<String>>) -> impl Iterator<Item = String> {
    let is_hash = |id: &String| id.len() == 64 && hex::decode(id).is_ok();
    ids.into_iter().flatten().filter(is_hash)
}

struct Eraser<'s> {
    table: Table,
    subject: &'s Subject,
    erasing: Erasing,
    /// The pace in partitions with the index on users.
    rows: Pace,
    /// The pace in those without.
    blocks: Pace,
    entry: Option<i64>,
    erased: Erased,
}

impl Eraser<'_> {
    async fn erase_in(&mut self, client: &mut Client, leaf: &Leaf) -> Result<()> {
        let end = match leaf.search {
            Search::Worker => {
                let rows = format!("{THEIRS} AND {BEFORE}");
                self.step(client, leaf, &rows).await?;
                return Ok(());
            }
            Search::Index => loop {
                let rows = format!(
                    "ctid = ANY (ARRAY(SELECT ctid FROM {} WHERE {THEIRS} AND {BEFORE} LIMIT {}))",
                    leaf.name,
                    self.rows.size()
                );
                let started = Instant::now();
                let count = self.step(client, leaf, &rows).await?;
                let pause = self.rows.after(started.elapsed());
                if count == 0 {
                    return Ok(());
                }
                tokio::time::sleep(pause).await;
            },
            Search::Blocks(count) => count,
        };
        // None of the user's rows from before comes after this, so the blocks there are now have them all.
        let mut from = 0;
        while from < end {
            let (to, blocks) = blocks(from, self.blocks.size());
            let rows = format!("{blocks} AND {THEIRS} AND {BEFORE}");
            let started = Instant::now();
            self.step(client, leaf, &rows).await?;
            tokio::time::sleep(self.blocks.after(started.elapsed())).await;
            from = to;
        }
        Ok(())
    }

    /// Erases the rows that a condition selects. Returns how many.
    async fn step(&mut self, client: &mut Client, leaf: &Leaf, rows: &str) -> Result<i64> {
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
                    rows if rows.is_empty() => return Ok(0),
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
            self.erased.anonymous.extend(hashes(ids));
        } else {
            tx.rollback().await?;
        }
        Ok(count)
    }

    /// Whether the rows of a leaf are in the books as removed, with its partition: then they have left
    /// the accounts, and no reader derives anything from them any more. Asked for after the rows were
    /// touched, as from then on no session detaches or counts what they are in.
    async fn is_removed(&self, tx: &Transaction<'_>, leaf: &Leaf) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM ingest_removed_rows
                                   WHERE relation_oid = $1 AND row_count IS NOT NULL)
                      AND NOT EXISTS (SELECT FROM pg_inherits
                                       WHERE inhrelid = $1 AND inhparent = to_regclass($2))";
        let parameters: [&(dyn ToSql + Sync); 2] = [&leaf.root, &self.table.as_str()];
        Ok(tx.query_one(sql, &parameters).await?.get(0))
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

/// The user's rows.
const THEIRS: &str = "tenant_id = $1 AND user_key = $2";

/// Rows from before the time.
const BEFORE: &str = "occurred_at < $3";

/// The anonymous id of a row.
const ANONYMOUS: &str = "meta ->> 'anonymous_id_hash'";
