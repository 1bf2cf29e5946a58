//! The schema is brought up to date, and checked, before anything else uses the database.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::accounts::board::{Board, Source};
use crate::backoff::Failing;
use crate::postgres::checks;
use crate::postgres::connect::Target;
use crate::postgres::migrate;
use crate::postgres::migrate::remake::{Remade, remake};
use crate::postgres::migrate::{History, Report};
use crate::postgres::session::Session;

/// Pause before a failed start-up step is retried.
const RETRY: Duration = Duration::from_secs(2);

/// Brings the schema up to date where that is wanted, checks it, then cancels `migrated`.
pub(super) async fn prepare_first(
    migrates: bool,
    target: Target,
    checks: Arc<Board>,
    migrated: CancellationToken,
) {
    prepare_until_done(&target, migrates, &checks).await;
    migrated.cancel();
}

/// Runs a task once the schema is up to date.
pub(super) fn after<T>(migrated: &CancellationToken, task: T) -> impl Future<Output = ()> + use<T>
where
    T: Future<Output = ()>,
{
    let migrated = migrated.clone();
    async move {
        migrated.cancelled().await;
        task.await;
    }
}

/// Brings the schema up to date and checks it. Retries for as long as Postgres is away.
async fn prepare_until_done(target: &Target, migrates: bool, checks: &Board) {
    let mut failing = Failing::default();
    while let Err(error) = prepare_once(target, migrates, checks).await {
        if failing.begins() {
            warn!("cannot use the database yet, retrying: {error:#}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Reads the migration history first, and migrates only if something is to be done: a role that may
/// not change the schema can use one that is up to date.
async fn prepare_once(target: &Target, migrates: bool, checks: &Board) -> Result<()> {
    let mut session = Session::open(target, None)
        .await
        .inspect_err(|error| checks.note_error(error))?;
    let history = migrate::look(&session.client).await?;
    let (finding, is_usable) = match &history {
        History::Current => (None, true),
        History::Unreadable => (
            Some(checks::history::unreadable(&session.client).await?),
            true,
        ),
        History::Foreign if !migrates => (Some(checks::history::foreign()), true),
        History::Behind(names) if !migrates => (Some(checks::history::behind(names)), false),
        History::Behind(_) | History::Foreign => match run_migrations(&mut session).await {
            Ok(_) => (None, true),
            // The connection was lost: Postgres refused nothing.
            Err(error) if session.client.is_closed() => return Err(error),
            Err(error) => (Some(checks::history::not_migrated(&error)), false),
        },
    };
    checks.put(Source::Migration, finding.clone().into_iter().collect());
    checks.inspect(&session.client).await?;
    match finding {
        Some(finding) if !is_usable => Err(finding.into()),
        _ => Ok(()),
    }
}

/// Brings the schema up to date, and makes again what was dropped of it. Returns the migrations that
/// ran, and what was made or is still gone.
///
/// # Errors
///
/// When Postgres cannot be reached, or refuses a migration.
pub async fn migrate_once(target: &Target) -> Result<(Report, Remade)> {
    let mut session = Session::open(target, None).await?;
    let report = run_migrations(&mut session).await?;
    let remade = remake(&mut session.client).await?;
    Ok((report, remade))
}

async fn run_migrations(session: &mut Session) -> Result<Report> {
    let report = migrate::migrate(&mut session.client).await?;
    for name in &report.applied {
        info!(migration = name, "applied");
    }
    if report.is_adopted() {
        info!(
            "the event tables were made by someone else; using them as they are. Their indexes and \
             DEFAULT partitions make every row dearer: `recsys-ingest adopt --lean` shows what can go"
        );
    }
    Ok(report)
}
