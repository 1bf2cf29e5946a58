//! Empties a DEFAULT partition range by range, the newest first, while readers and writers go on.
//!
//! Decides what is next; `settle` does it. The current range stays until it is over: its rows come
//! all the time, and none has to wait.

use tokio_postgres::Client;
use tracing::warn;

use super::catalog::{Bound, begin, coverage_of, end, read_parent, read_partitions};
use super::create::{Created, Ensured, ensure_with};
use super::defaults::{is_empty, read_state, row_before_or_from};
use super::error::Error;
use super::indexes::IndexProfile;
use super::kept::read_kept_from;
use super::range::{Interval, Range};
use super::settle::{Work, failed, settle, undo};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::postgres::advisory_lock;
use crate::postgres::ident::qualified;

/// Key of the advisory lock: "ingestDF" in ASCII, so that an operator can recognise it in
/// `pg_locks`.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"ingestDF");

/// A range is moved so long after its end: until then most of its rows may still come.
const GRACE_US: i64 = 600_000_000;

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is nothing to move now, or another process is at it.
    Nothing,
    /// Partitions that were created, with the rows that were moved into them.
    Created(Vec<Created>),
}

/// Which partitions the rows go into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) interval: Interval,
    /// Partitions to have after the current one.
    pub(crate) ahead: u32,
    pub(crate) indexes: IndexProfile,
    pub(crate) now: Micros,
}

/// Moves one range out of a table's DEFAULT partition, if one is to be moved.
///
/// # Errors
///
/// [`Error::Busy`] if the locks were not to be had for ten minutes. What was begun is undone then,
/// or by the next call.
pub(crate) async fn step(client: &mut Client, table: Table, plan: Plan) -> Result<Progress, Error> {
    if find(client, table, plan).await?.is_none() {
        return Ok(Progress::Nothing);
    }
    let failed = failed("take the lock of the emptying", table);
    if advisory_lock::try_lock(client, LOCK_KEY)
        .await
        .map_err(&failed)?
        .is_none()
    {
        return Ok(Progress::Nothing);
    }
    let done = locked(client, table, plan).await;
    let unlocked = advisory_lock::unlock(client, LOCK_KEY)
        .await
        .map_err(failed);
    let done = done?;
    unlocked.map(|()| done)
}

async fn locked(client: &mut Client, table: Table, plan: Plan) -> Result<Progress, Error> {
    let Some(work) = find(client, table, plan).await? else {
        return Ok(Progress::Nothing);
    };
    if work.is_interrupted {
        undo(client, &work).await?;
    }
    let Some(hole) = work.hole else {
        if work.is_bloated {
            vacuum(client, &work).await?;
        }
        return Ok(Progress::Nothing);
    };
    if work.is_small {
        // A few rows are moved at once.
        match ensure_with(
            client,
            table,
            hole,
            plan.indexes,
            "from the default partition",
        )
        .await?
        {
            Ensured::LeftInDefault => {}
            // Another process was faster.
            Ensured::Existed => return Ok(Progress::Nothing),
            ensured => return Ok(Progress::Created(ensured.created().to_vec())),
        }
    }
    let moved = settle(client, &work, hole, plan.indexes).await;
    if moved.is_err() && !client.is_closed() {
        // The next step undoes it if this fails.
        if let Err(error) = undo(client, &work).await {
            warn!(%table, %error, "cannot undo an attempt to empty the default partition yet");
        }
    }
    moved.map(Progress::Created)
}

/// Decides what to move. `None` if there is nothing to do.
async fn find(client: &mut Client, table: Table, plan: Plan) -> Result<Option<Work>, Error> {
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let partitions = read_partitions(&tx, &parent).await?;
    let Some(default) = partitions.iter().find(|p| p.bound == Bound::Default) else {
        return end(tx, table).await.map(|()| None);
    };
    let default = default.clone();
    let owner = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1";
    let asking = tx.query_one(owner, &[&parent.oid]).await;
    if !asking
        .map_err(failed("find out who owns the partitions", table))?
        .get::<_, bool>(0)
    {
        // The checks report this, with what to do.
        return end(tx, table).await.map(|()| None);
    }
    let state = read_state(&tx, table, &default).await?;
    let coverage = coverage_of(&partitions);
    let current = plan.interval.range_of(plan.now.0);
    // Where a scan is long, the coming ranges need the constraint as well, all of them one.
    let ahead = match state.is_small {
        true => Vec::new(),
        false if plan.ahead == 0 => Vec::new(),
        false => coverage.missing(
            plan.interval
                .ranges_ahead(current.to_us, plan.ahead.saturating_sub(1)),
        ),
    };
    let hole = match (ahead.first(), ahead.last()) {
        (Some(first), Some(last)) => Some(Range {
            from_us: first.from_us,
            to_us: last.to_us,
        }),
        _ => {
            let over_us = plan
                .interval
                .range_of(plan.now.0.saturating_sub(GRACE_US))
                .from_us;
            let row = row_before_or_from(&tx, table, &default, over_us, current.to_us).await?;
            row.map(|at| plan.interval.range_of(at.0))
        }
    };
    // Retention removes those.
    let kept_from_us = read_kept_from(&tx, table).await?;
    let hole = hole.filter(|hole: &Range| hole.to_us > kept_from_us);
    let is_bloated = hole.is_none() && !state.is_small && is_empty(&tx, table, &default).await?;
    end(tx, table).await?;
    let gaps: Vec<Range> = match (hole, ahead.is_empty()) {
        (Some(hole), true) => coverage.gaps(hole),
        _ => ahead
            .iter()
            .flat_map(|range| coverage.gaps(*range))
            .collect(),
    };
    let is_interrupted = state.leaving.is_some();
    Ok(
        (hole.is_some() || is_interrupted || is_bloated).then_some(Work {
            is_bloated,
            parent,
            default,
            is_small: state.is_small,
            is_interrupted,
            hole,
            gaps,
        }),
    )
}

/// Frees the space of rows that were moved, so that the DEFAULT partition counts as small again.
async fn vacuum(client: &Client, work: &Work) -> Result<(), Error> {
    let failed = failed("vacuum the default partition", work.parent.table);
    let leaf = qualified(&work.default.schema, &work.default.name);
    let limit: String = client
        .query_one("SHOW statement_timeout", &[])
        .await
        .map_err(&failed)?
        .get(0);
    client
        .batch_execute("SET statement_timeout = 0")
        .await
        .map_err(&failed)?;
    let done = client.batch_execute(&format!("VACUUM {leaf}")).await;
    let reset = format!("SET statement_timeout = '{limit}'");
    done.and(client.batch_execute(&reset).await).map_err(failed)
}
