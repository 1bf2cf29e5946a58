//! Seals partitions, one step at a time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::Client;
use tracing::{info, warn};

use crate::event::table::Table;
use crate::metrics::{ByTable, Metrics};

use super::lock::{try_lock, unlock};
use super::plan::{Selection, Step};
use super::pressure::Pressure;
use crate::partitions::error::Error;
use crate::partitions::history::{Action, record};
use crate::partitions::leaf::{Leaf, leaves};
use crate::postgres::error::{self as postgres, ErrorChain, limited};
use crate::postgres::ident::qualified;
use crate::postgres::ident::quoted;
use crate::postgres::session::Session;

/// Builds one index at a time, with little memory and no parallel workers: it is not urgent, and
/// the lanes need the machine. The lock timeout allows for a long report, because an abandoned
/// build has to start again.
const SESSION: &str = "
    SET statement_timeout = 0;
    SET lock_timeout = '10min';
    SET maintenance_work_mem = '64MB';
    SET max_parallel_maintenance_workers = 0";

/// Makes the server check during a statement that the client is connected. Otherwise an orphaned
/// build keeps its locks to its end. Some platforms do not support this.
const NOTICE_OUR_DEATH: &str = "SET client_connection_check_interval = '5s'";

/// Longest wait for an answer that takes no work: after it the connection is dead.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Longest wait for a step. An index of the largest partitions takes an hour or two, and may wait
/// for locks before that; a step that takes longer has lost its server. Its session is ended, and
/// what it left is dropped and built again.
const STEP_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// The result of a sealing run.
#[derive(Debug, Default)]
pub struct SealReport {
    /// Partitions that this run sealed.
    pub sealed: Vec<Sealed>,
    /// Partitions that failed, and why.
    pub failed: Vec<Failed>,
    /// Another sealer holds the lock; it does the remaining work.
    pub is_busy: bool,
}

/// A partition that was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub table: Table,
    /// Its name, without its schema.
    pub name: String,
    /// Indexes that this run built.
    pub built: u32,
    /// The duration of its steps.
    pub took: Duration,
}

/// A partition that could not be sealed.
#[derive(Debug)]
pub struct Failed {
    /// Its name, without its schema.
    pub name: String,
    pub error: Error,
}

/// What this run has done for a partition so far.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    built: u32,
    took: Duration,
}

/// Seals the selected partitions, the latest first: most queries are about that one.
///
/// Before each step it waits until `pressure` is low. A partition that fails does not hold up the
/// others; the next call tries it again.
///
/// # Errors
///
/// When the connection is lost, or the catalog cannot be read.
pub async fn seal(
    session: &mut Session,
    selection: &Selection,
    pressure: Option<&Pressure>,
    metrics: &Metrics,
) -> Result<SealReport, Error> {
    prepare(&session.client).await?;
    let mut outcome = SealReport::default();
    let mut passed_over = Vec::new();
    let mut progress: HashMap<u32, Progress> = HashMap::new();
    // First without the lock: usually there is nothing to do.
    while next(session, selection, &passed_over, metrics)
        .await?
        .is_some()
    {
        if let Some(pressure) = pressure {
            pressure.wait_until_low().await;
        }
        if !try_lock(&session.client).await? {
            outcome.is_busy = true;
            break;
        }
        // Another sealer may have taken the step during the wait.
        let Some((leaf, step)) = next(session, selection, &passed_over, metrics).await? else {
            unlock(&session.client).await?;
            break;
        };
        let so_far = progress.entry(leaf.oid).or_default();
        let started = Instant::now();
        let result = take(&session.client, &leaf, &step, *so_far).await;
        so_far.took += started.elapsed();
        match result {
            Ok(()) if step == Step::Finish => {
                let sealed = Sealed {
                    table: leaf.table,
                    name: leaf.name,
                    built: so_far.built,
                    took: so_far.took,
                };
                info!(
                    table = %sealed.table, partition = sealed.name, indexes = sealed.built,
                    seconds = sealed.took.as_secs_f32(), "sealed a partition"
                );
                let label = ByTable { table: leaf.table };
                metrics.partitions_sealed.get_or_create(&label).inc();
                outcome.sealed.push(sealed);
            }
            Ok(()) => so_far.built += u32::from(matches!(step, Step::Build(_))),
            Err(error) if session.client.is_closed() || error.is_timeout() => return Err(error),
            Err(error) => {
                passed_over.push(leaf.oid);
                outcome.failed.push(Failed {
                    name: leaf.name,
                    error,
                });
            }
        }
        unlock(&session.client).await?;
    }
    Ok(outcome)
}

async fn prepare(client: &Client) -> Result<(), Error> {
    let doing = "set up the session of the sealer";
    limited(doing, STATEMENT_LIMIT, client.batch_execute(SESSION)).await?;
    let setting = client.batch_execute(NOTICE_OUR_DEATH);
    match limited(doing, STATEMENT_LIMIT, setting).await {
        // An unsupported setting is ignored; a lost connection shows at the next statement.
        Ok(()) | Err(postgres::Error::Statement { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The next step and its partition.
async fn next(
    session: &mut Session,
    selection: &Selection,
    passed_over: &[u32],
    metrics: &Metrics,
) -> Result<Option<(Leaf, Step)>, Error> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let reading = leaves(&mut session.client, table);
        let steps = answered("read the partitions to seal", reading).await?;
        let steps = steps
            .into_iter()
            .filter_map(|leaf| selection.step(&leaf).map(|step| (leaf, step)));
        let before = all.len();
        all.extend(steps);
        if matches!(selection, Selection::Due { .. }) {
            let unsealed = i64::try_from(all.len() - before).unwrap_or(i64::MAX);
            let label = ByTable { table };
            metrics
                .partitions_unsealed
                .get_or_create(&label)
                .set(unsealed);
        }
    }
    Ok(all
        .into_iter()
        .filter(|(leaf, _)| !passed_over.contains(&leaf.oid))
        .max_by_key(|(leaf, _)| (leaf.range, leaf.oid)))
}

/// Takes one step. The catalog shows what an interrupted step left.
async fn take(client: &Client, leaf: &Leaf, step: &Step, so_far: Progress) -> Result<(), Error> {
    let partition = qualified(&leaf.schema, &leaf.name);
    let run = async |doing, sql: String| {
        let running = client.batch_execute(&sql);
        Ok::<_, Error>(limited(doing, STEP_LIMIT, running).await?)
    };
    match step {
        Step::Drop(index) => {
            warn!(
                partition = leaf.name,
                index, "dropping what an interrupted build left behind"
            );
            let index = qualified(&leaf.schema, index);
            run(
                "drop what an interrupted build left behind",
                format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
            )
            .await
        }
        Step::Build(index) => {
            let name = quoted(&index.name_on(&leaf.name));
            run(
                "build an index",
                format!(
                    "CREATE INDEX CONCURRENTLY {name} ON {partition} USING {}",
                    index.shape
                ),
            )
            .await
        }
        Step::Finish => {
            run("gather statistics", format!("ANALYZE {partition}")).await?;
            let reason = match so_far.built {
                0 => "its indexes were there".to_owned(),
                built => format!(
                    "built {built} indexes in {:.1} s",
                    so_far.took.as_secs_f32()
                ),
            };
            let (table, range) = (leaf.table, leaf.range);
            let recording = record(client, table, &leaf.name, range, Action::Sealed, &reason);
            answered("record that a partition is sealed", recording).await
        }
    }
}

/// Limits the wait for statements that take no work.
async fn answered<T>(
    doing: &'static str,
    statements: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(STATEMENT_LIMIT, statements)
        .await
        .unwrap_or_else(|_| {
            let seconds = STATEMENT_LIMIT.as_secs();
            Err(postgres::Error::TimedOut { doing, seconds }.into())
        })
}

impl SealReport {
    /// Logs the partitions that failed.
    pub(crate) fn log_failures(&self) {
        for Failed { name, error } in &self.failed {
            warn!(
                partition = name,
                error = %ErrorChain(error),
                "cannot seal a partition, trying again later; if it waits for a lock, look in pg_stat_activity for old transactions"
            );
        }
    }
}
