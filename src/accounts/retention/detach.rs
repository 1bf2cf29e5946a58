//! Removes partitions: announces them, detaches them, and counts, books and drops what was detached.
//!
//! Invariant: an interrupted removal leaves an entry without a count, from which the next run goes
//! on. Rows are counted once none can come any more, in the transaction that drops them.

use std::time::Duration;

use tokio_postgres::{Client, GenericClient};
use tracing::{info, warn};

use super::policy::{is_due, kept_from};
use crate::accounts::removed::{self, Kind, Open, Reason};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::partitions::catalog::{
    Bound, Parent, Partition, begin, end, read_parent, read_partitions,
};
use crate::partitions::error::Error;
use crate::partitions::history::{Action, record};
use crate::partitions::kept::raise_kept_from;
use crate::partitions::range::Range;
use crate::postgres::citus::is_on_workers;
use crate::postgres::ident::qualified;
use crate::postgres::patience::{Patience, begin_locked, is_lock_missed, run_locked};

/// How long to try for a lock, while long transactions hold it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long `DETACH … CONCURRENTLY` waits for old transactions. No statement queues behind it, and
/// what is interrupted is finished by the next run.
const QUIET_WAIT: &str = "120s";

/// A partition that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub table: Table,
    /// Its name, without its schema.
    pub name: String,
    pub range: Range,
    /// All its rows, also those without an event id.
    pub rows: i64,
    /// It is still there, as a table by itself.
    pub is_kept: bool,
}

/// What a run of one table removed, and what it could not.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) removed: Vec<Removed>,
    /// Names of partitions, and why they are still there.
    pub(super) failed: Vec<(String, Error)>,
    /// The time from which on rows are kept, and the DEFAULT partition, if there is one.
    pub(super) default: Option<(Partition, i64)>,
}

/// Removes what of a table ended before `cutoff`, the oldest first; without one, only finishes what
/// was begun.
///
/// # Errors
///
/// When the connection is lost or the catalog cannot be read.
pub(super) async fn run(
    client: &mut Client,
    table: Table,
    cutoff: Option<Micros>,
    keeps_detached: bool,
) -> Result<Outcome, Error> {
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let partitions = read_partitions(&tx, &parent).await?;
    let open = removed::open(&tx, table.as_str())
        .await
        .map_err(failed("read what is being removed", table))?;
    let is_on_workers = is_on_workers(&tx, table)
        .await
        .map_err(failed("ask where the rows are", table))?;
    end(tx, table).await?;
    let due = due(&partitions, cutoff);
    let default = partitions.iter().find(|p| p.bound == Bound::Default);
    let work = Work {
        parent,
        default: default.cloned(),
        keeps_detached,
        is_on_workers,
    };
    let mut outcome = Outcome::default();
    for entry in &open {
        let is_due = due.iter().any(|(leaf, _)| leaf.oid == entry.oid);
        if !(entry.is_shown && is_due) {
            let done = work.resume(client, entry).await;
            outcome.note(client, entry.relation.clone(), done)?;
        }
    }
    // Postgres detaches one partition of a table at a time.
    let Some(cutoff) = cutoff.filter(|_| outcome.failed.is_empty()) else {
        return Ok(outcome);
    };
    let kept_from_us = kept_from(cutoff, due.iter().map(|(_, range)| range.to_us));
    // Postgres's calendar begins later than that of the settings.
    if kept_from_us > 0 {
        raise_kept_from(&*client, table, kept_from_us).await?;
    }
    for (leaf, range) in due {
        let entry = open.iter().find(|entry| entry.oid == leaf.oid);
        let done = work
            .remove(client, leaf, range, entry.map(|entry| entry.id))
            .await;
        if !outcome.note(client, leaf.name.clone(), done.map(Some))? {
            // The others would wait for the same transactions.
            break;
        }
    }
    outcome.default = work.default.map(|default| (default, kept_from_us));
    Ok(outcome)
}

/// The partitions that hold nothing which is kept, the oldest first. One that someone is detaching
/// is theirs.
pub(super) fn due(partitions: &[Partition], cutoff: Option<Micros>) -> Vec<(&Partition, Range)> {
    let mut due: Vec<_> = partitions
        .iter()
        .filter_map(|leaf| match leaf.bound {
            Bound::Range(range) if !leaf.is_detaching && is_due(range, cutoff?) => {
                Some((leaf, range))
            }
            _ => None,
        })
        .collect();
    due.sort_by_key(|(_, range)| *range);
    due
}

impl Outcome {
    /// Notes what became of a partition. `false`: it is still there. An error only if the
    /// connection is lost.
    fn note(
        &mut self,
        client: &Client,
        name: String,
        done: Result<Option<Removed>, Error>,
    ) -> Result<bool, Error> {
        match done {
            Ok(removed) => {
                if let Some(one) = removed {
                    info!(
                        table = %one.table, partition = one.name, range = %one.range, rows = one.rows,
                        is_kept = one.is_kept, "removed a partition that is older than what is kept"
                    );
                    self.removed.push(one);
                }
                Ok(true)
            }
            Err(error) if client.is_closed() => Err(error),
            Err(error) => {
                self.failed.push((name, error));
                Ok(false)
            }
        }
    }
}

/// A table with partitions to remove.
struct Work {
    parent: Parent,
    default: Option<Partition>,
    keeps_detached: bool,
    is_on_workers: bool,
}

impl Work {
    fn name(&self, leaf: &Partition) -> String {
        qualified(&leaf.schema, &leaf.name)
    }

    /// Removes a partition. `entry`: it was announced already.
    async fn remove(
        &self,
        client: &mut Client,
        leaf: &Partition,
        range: Range,
        entry: Option<i64>,
    ) -> Result<Removed, Error> {
        let table = self.parent.table;
        let relation = self.name(leaf);
        let id = match entry {
            Some(id) => id,
            None => {
                let words = format!("all of {range} is older than what is kept");
                let reason = Reason {
                    table: table.as_str(),
                    kind: Kind::Retention,
                    words: &words,
                    tenant: None,
                };
                removed::announce(&*client, &reason, &relation, range)
                    .await
                    .map_err(failed("announce the removal of a partition", table))?
            }
        };
        self.detach(client, &relation).await?;
        self.settle(client, id, &relation, &leaf.name, range).await
    }

    /// Goes on with a removal that was interrupted, or takes its announcement back.
    async fn resume(&self, client: &mut Client, entry: &Open) -> Result<Option<Removed>, Error> {
        let table = self.parent.table;
        let Some(name) = entry.name.as_deref().filter(|_| !entry.is_shown) else {
            if !entry.is_shown {
                warn!(
                    %table, partition = entry.relation,
                    "a partition that was being removed is gone: someone else dropped it, and its rows are not booked; `recsys-ingest verify` shows how many"
                );
            }
            let withdrawn = removed::withdraw(&*client, entry.id).await;
            withdrawn.map_err(failed("take back the removal of a partition", table))?;
            return Ok(None);
        };
        if entry.is_attached {
            let above = qualified(&self.parent.schema, table.as_str());
            let sql = format!(
                "ALTER TABLE {above} DETACH PARTITION {} FINALIZE",
                entry.relation
            );
            self.wait_quietly(client, &sql).await?;
        }
        let settled = self.settle(client, entry.id, &entry.relation, name, entry.range);
        settled.await.map(Some)
    }

    async fn detach(&self, client: &Client, relation: &str) -> Result<(), Error> {
        let table = self.parent.table;
        let above = qualified(&self.parent.schema, table.as_str());
        let detach = format!("ALTER TABLE {above} DETACH PARTITION {relation}");
        if self.default.is_none() && !self.is_on_workers {
            let detach = format!("{detach} CONCURRENTLY");
            return self.wait_quietly(client, &detach).await;
        }
        // Refused CONCURRENTLY beside a DEFAULT partition, and by Citus always: all locks at once,
        // each asked for briefly.
        let default = self.default.as_ref().map(|default| self.name(default));
        let default = default.map_or_else(String::new, |name| format!("ONLY {name}, "));
        let lock =
            format!("LOCK TABLE ONLY {above}, {default}ONLY {relation} IN ACCESS EXCLUSIVE MODE");
        run_locked(client, &lock, &detach, Patience::new(PATIENCE))
            .await
            .map_err(failed("detach a partition", table))
    }

    /// Runs a statement that holds no other session up while it waits.
    async fn wait_quietly(&self, client: &Client, sql: &str) -> Result<(), Error> {
        let failed = failed("detach a partition", self.parent.table);
        // Apart: a concurrent detaching may be in no transaction, and statements that are sent
        // together are one.
        let limit = format!("SET lock_timeout = '{QUIET_WAIT}'");
        client.batch_execute(&limit).await.map_err(&failed)?;
        let done = client.batch_execute(sql).await;
        let reset = client.batch_execute("RESET lock_timeout").await;
        done.and(reset).map_err(failed)
    }

    /// Counts, books and drops a detached partition.
    async fn settle(
        &self,
        client: &mut Client,
        id: i64,
        relation: &str,
        name: &str,
        range: Range,
    ) -> Result<Removed, Error> {
        let table = self.parent.table;
        let failed = failed("remove a detached partition", table);
        let patience = Patience::new(PATIENCE);
        let lock = format!("LOCK TABLE {relation} IN ACCESS EXCLUSIVE MODE");
        loop {
            match begin_locked(client, &lock).await {
                Ok(()) => break,
                Err(error) => {
                    if !is_lock_missed(&error) || !patience.pause().await {
                        return Err(failed(error));
                    }
                }
            }
        }
        let done = self
            .settle_locked(&*client, id, relation, name, range)
            .await;
        let ended = client
            .batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })
            .await;
        let rows = done?;
        ended.map_err(failed)?;
        Ok(Removed {
            table,
            name: name.to_owned(),
            range,
            rows,
            is_kept: self.keeps_detached,
        })
    }

    async fn settle_locked(
        &self,
        client: &impl GenericClient,
        id: i64,
        relation: &str,
        name: &str,
        range: Range,
    ) -> Result<i64, Error> {
        let table = self.parent.table;
        let failed = failed("remove a detached partition", table);
        let count = format!("SELECT count(event_id), count(*) FROM {relation}");
        let counted = client.query_one(&count, &[]).await.map_err(&failed)?;
        let (booked, rows): (i64, i64) = (counted.get(0), counted.get(1));
        removed::settle(client, id, booked).await.map_err(&failed)?;
        let action = match self.keeps_detached {
            true => Action::Detach,
            false => Action::Drop,
        };
        let reason = format!("older than what is kept; {rows} rows");
        record(client, table, name, range, action, &reason).await?;
        if !self.keeps_detached {
            let drop = format!("DROP TABLE {relation}");
            client.batch_execute(&drop).await.map_err(failed)?;
        }
        Ok(rows)
    }
}

fn failed(doing: &'static str, table: Table) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Postgres {
        doing,
        table,
        source,
    }
}
