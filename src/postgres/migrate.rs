//! Migrates a database to the schema that this program writes.
//!
//! Invariant: at most one process changes the schema of a database at a time (`lock`).
//!
//! Invariant: readers and writers of a table wait for no migration. Each lock has a short timeout,
//! and a migration that does not get one is rolled back and tried again. What takes long, the unique
//! index of an adopted table, is built beforehand, outside of any transaction (`key_index`).
//!
//! Knows neither settings nor partitions. New event tables have no partitions; those that the suite
//! created keep theirs.

mod lock;
pub mod objects;
pub mod remake;

use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use siphasher::sip::SipHasher13;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::key_index;
use super::patience::{LOCK_WAIT_MS, Patience, is_contention};
use crate::event::table::Table;
use lock::{lock, unlock};

/// The table of applied migrations. The suite has a separate history in `schema_migrations`, and
/// the two must not mix.
const HISTORY_TABLE: &str = "ingest_schema_history";

/// How long to wait for another process that is migrating. Adopting a large database builds a
/// unique index, which takes minutes.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// How long a migration is tried while others hold the locks that it needs.
const PATIENCE: Duration = Duration::from_secs(600);

/// The migration that adopts event tables of the suite's.
const EVENT_TABLES: i32 = 2;

/// A file of `migrations/`.
struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
    /// Checksums of earlier texts, which led to a schema that later migrations bring to the same
    /// state.
    former: &'static [&'static str],
}

macro_rules! migrations {
    ($($version:literal $name:literal $(formerly $former:literal)?,)+) => {
        [$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/migrations/V", $version, "__", $name, ".sql"
            )),
            former: &[$($former)?],
        }),+]
    };
}

/// All migrations, oldest first. A migration that was applied anywhere is never changed, as its
/// checksum is in the history of that database; unless the earlier checksum is listed here, and a
/// later migration changes what the earlier text made.
static MIGRATIONS: [Migration; 15] = migrations![
    1 "suite_schema" formerly "794973743936338952",
    2 "event_tables" formerly "12531715001534498653",
    3 "ingest_tables",
    4 "evaluation_views",
    5 "openings",
    6 "quarantine_bytes",
    7 "callers",
    8 "names_beside_the_suite",
    9 "assignments",
    10 "signals",
    11 "pipelines_view",
    12 "removed_rows",
    13 "erasure",
    14 "ranks_from_one",
    15 "leases",
];

impl Migration {
    fn checksum(&self) -> String {
        let mut hasher = SipHasher13::new();
        self.name.hash(&mut hasher);
        self.version.hash(&mut hasher);
        self.sql.hash(&mut hasher);
        hasher.finish().to_string()
    }

    /// Whether a checksum in a history is of this migration.
    fn is(&self, checksum: &str) -> bool {
        self.former.contains(&checksum) || self.checksum() == checksum
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{}__{}", self.version, self.name)
    }
}

/// A row of the history.
struct Applied {
    version: i32,
    checksum: String,
}

/// How many migrations there are.
pub fn count() -> usize {
    MIGRATIONS.len()
}

/// The name and the SQL of a migration by its name, as [`History::Behind`] lists them.
pub fn sql(name: &str) -> Option<&'static str> {
    let mut all = MIGRATIONS.iter();
    let found = all.find(|migration| migration.to_string() == name)?;
    Some(found.sql)
}

/// The names of all migrations, oldest first.
pub fn names() -> Vec<String> {
    MIGRATIONS.iter().map(ToString::to_string).collect()
}

/// The result of [`migrate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The migrations that this call applied, oldest first, as `V2__event_tables`.
    pub applied: Vec<String>,
    /// The event tables that another program created. They keep their primary key, foreign keys,
    /// indexes and partitions.
    pub adopted: Vec<Table>,
}

impl Report {
    /// Whether another program created the event tables.
    pub fn is_adopted(&self) -> bool {
        !self.adopted.is_empty()
    }
}

/// Applies the missing migrations to `client`'s database.
///
/// Checks first: if nothing is missing, the role needs only SELECT on the history.
///
/// Needs a dedicated connection, not one of a pool: it holds a session lock, and sets
/// `lock_timeout` on the session while it runs. Any number of processes may call it at once; the
/// later ones wait and find nothing to do.
pub async fn migrate(client: &mut Client) -> anyhow::Result<Report> {
    migrate_within(client, WAIT_MAX).await
}

/// [`migrate`] with another limit on the wait for a process that is migrating.
pub async fn migrate_within(client: &mut Client, wait_max: Duration) -> anyhow::Result<Report> {
    if look(client).await? == History::Current {
        return Ok(Report {
            applied: Vec::new(),
            adopted: adopted(client).await?,
        });
    }
    let backend = lock(client, wait_max).await?;
    let outcome = run(client).await;
    let unlocked = unlock(client, backend).await;
    // The first failure is the cause. A lost lock matters only if nothing failed.
    let report = outcome?;
    unlocked?;
    Ok(report)
}

/// The history of migrations compared with the migrations of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// Exactly the migrations of this program were applied.
    Current,
    /// These migrations were not applied yet.
    Behind(Vec<String>),
    /// Migrations were applied that this program does not have.
    Foreign,
    /// The role may not read the history.
    Unreadable,
}

/// Reads the history; changes nothing and locks nothing.
///
/// # Errors
/// When the connection is lost.
pub async fn look(client: &Client) -> anyhow::Result<History> {
    let may_read: Option<bool> = client
        .query_one(
            "SELECT has_table_privilege(to_regclass($1), 'SELECT')",
            &[&HISTORY_TABLE],
        )
        .await
        .context("cannot look for the history of migrations")?
        .get(0);
    let applied = match may_read {
        None => Vec::new(),
        Some(false) => return Ok(History::Unreadable),
        Some(true) => history(client).await?,
    };
    let behind: Vec<String> = MIGRATIONS
        .iter()
        .filter(|migration| {
            !applied
                .iter()
                .any(|row| row.version == migration.version && migration.is(&row.checksum))
        })
        .map(ToString::to_string)
        .collect();
    if MIGRATIONS.len() - behind.len() < applied.len() {
        return Ok(History::Foreign);
    }
    Ok(match behind.is_empty() {
        true => History::Current,
        false => History::Behind(behind),
    })
}

async fn history(client: &Client) -> anyhow::Result<Vec<Applied>> {
    let rows = client
        .query(
            &format!("SELECT version, checksum::text FROM {HISTORY_TABLE}"),
            &[],
        )
        .await
        .context("cannot read the history of migrations")?;
    let applied = rows.iter().map(|row| Applied {
        version: row.get(0),
        checksum: row.get(1),
    });
    Ok(applied.collect())
}

/// Applies the missing migrations; the lock is held.
async fn run(client: &mut Client) -> anyhow::Result<Report> {
    client
        .batch_execute(&format!("SET lock_timeout = {LOCK_WAIT_MS}"))
        .await
        .context("cannot limit the wait for table locks")?;
    let outcome = apply_missing(client).await;
    let reset = client.batch_execute("RESET lock_timeout").await;
    let applied = outcome?;
    reset.context("cannot lift the limit on the wait for table locks")?;
    Ok(Report {
        applied,
        adopted: adopted(client).await?,
    })
}

/// Applies each missing migration in one transaction with its row of the history.
async fn apply_missing(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let make_history = format!(
        "CREATE TABLE IF NOT EXISTS {HISTORY_TABLE} (
             version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255))"
    );
    let made = client.batch_execute(&make_history).await;
    made.map_err(|error| explain(error, format!("cannot make {HISTORY_TABLE}")))?;
    let applied = history(client).await?;
    for row in &applied {
        let ours = MIGRATIONS.iter().find(|ours| ours.version == row.version);
        match ours {
            None => bail!(
                "the database was migrated by a newer version of this program, to migration {}: run \
                 that one",
                row.version
            ),
            Some(ours) if !ours.is(&row.checksum) => bail!(
                "migration {} recorded in {HISTORY_TABLE} is not the one in this program: \
                 the database was migrated by another build",
                row.version
            ),
            Some(_) => {}
        }
    }
    let newest = applied.iter().map(|row| row.version).max();
    let mut done = Vec::new();
    for migration in &MIGRATIONS {
        if applied.iter().any(|row| row.version == migration.version) {
            continue;
        }
        if Some(migration.version) < newest {
            bail!(
                "{HISTORY_TABLE} lacks {migration}, though a later migration ran: restore that row"
            );
        }
        if migration.version == EVENT_TABLES {
            let prepared = key_index::prepare(client).await;
            prepared.map_err(|error| {
                let doing = "cannot prepare the event tables for their unique index";
                explain(error, doing.to_owned())
            })?;
        }
        let ran = apply_patiently(client, migration).await;
        ran.map_err(|error| explain(error, format!("cannot apply {migration}")))?;
        done.push(migration.to_string());
    }
    Ok(done)
}

/// Applies a migration, however often others hold a lock that it needs.
async fn apply_patiently(
    client: &mut Client,
    migration: &Migration,
) -> Result<(), tokio_postgres::Error> {
    let patience = Patience::new(PATIENCE);
    loop {
        match apply(client, migration).await {
            Err(error) if is_contention(&error) && patience.pause().await => {}
            done => return done,
        }
    }
}

async fn apply(client: &mut Client, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(migration.sql).await?;
    transaction
        .execute(
            &format!(
                "INSERT INTO {HISTORY_TABLE} (version, name, applied_on, checksum) VALUES
                     ($1, $2, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), $3)"
            ),
            &[&migration.version, &migration.name, &migration.checksum()],
        )
        .await?;
    transaction.commit().await
}

/// Adds advice to the failures that an operator can fix.
fn explain(error: tokio_postgres::Error, doing: String) -> anyhow::Error {
    let advice = match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => format!(
            "a table was in use whenever its lock was asked for, for {} minutes; nothing of that \
             migration was kept: end the long transactions in pg_stat_activity and start again",
            PATIENCE.as_secs() / 60
        ),
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "the role may not change the schema: connect as the owner of the suite's tables, \
             or as a role that may create in the schema"
                .to_owned()
        }
        _ => "cannot migrate the database".to_owned(),
    };
    anyhow::Error::new(error).context(doing).context(advice)
}

/// The event tables that another program created.
///
/// Recognised by their columns, not by a record, so that the answer is the same at every start: a
/// table of these migrations has a NOT NULL `event_id`, an adopted one cannot.
async fn adopted(client: &Client) -> anyhow::Result<Vec<Table>> {
    let mut adopted = Vec::new();
    for table in Table::OF_SUITE {
        let row = client
            .query_opt(
                "SELECT attnotnull FROM pg_attribute
                 WHERE attrelid = to_regclass($1) AND attname = 'event_id' AND NOT attisdropped",
                &[&table.as_str()],
            )
            .await
            .with_context(|| format!("cannot read the shape of {table}"))?;
        match row {
            Some(row) if row.get(0) => {}
            Some(_) => adopted.push(table),
            None => bail!(
                "{table} is missing or has no column event_id, though {HISTORY_TABLE} says that it \
                 was made: restore the table, or check the role's search_path"
            ),
        }
    }
    Ok(adopted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_migration_and_its_checksum_is_the_one_that_databases_have() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
        let mut files: Vec<_> = folder
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let mut names: Vec<_> = MIGRATIONS
            .iter()
            .map(|ours| format!("{ours}.sql"))
            .collect();
        names.sort();
        assert_eq!(files, names);
        let checksums: Vec<_> = MIGRATIONS.iter().map(Migration::checksum).collect();
        assert_eq!(
            checksums,
            [
                "13688149337387586406", "1101279215371516489", "10939524292057751734",
                "7323252153071285246", "4392810091695728230", "5145493929060081021",
                "8219964059756254747", "4769933710386011688", "17352862405819725340",
                "12450468728374941559", "6954738086683967357", "6641883220919533911",
                "10382859070534194833", "17825523122856300514", "15499110736357064570",
            ]
        );
    }
}
