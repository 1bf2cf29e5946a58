//! All that is stored of a user, line by line.

use std::pin::pin;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel};

use super::begin::Subject;
use super::leaf::kept;
use super::quarantined;
use crate::accounts::quarantine::show;
use crate::event::table::Table;

/// Passes each row of a user to `take`, as one line of JSON, of all times. Returns how many.
/// The event tables are read in one snapshot.
///
/// # Errors
///
/// When Postgres refuses or is unreachable, and those of `take`.
pub async fn export(
    client: &mut Client,
    subject: &Subject,
    mut take: impl FnMut(&str) -> Result<()>,
) -> Result<u64> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .context("cannot begin a transaction")?;
    // Before the snapshot is taken: no partition is detached from then on.
    let tables = Table::ALL.map(|table| format!("ONLY {table}")).join(", ");
    snapshot
        .batch_execute(&format!(
            "SET LOCAL TimeZone = 'UTC'; LOCK TABLE {tables} IN ACCESS SHARE MODE"
        ))
        .await
        .context("cannot lock the event tables for reading")?;
    let mut count = 0;
    for table in Table::ALL {
        let kept = kept(&snapshot, table).await;
        let kept =
            kept.with_context(|| format!("cannot read the detached partitions of {table}"))?;
        let kept = kept.into_iter().map(Some);
        for detached in [None].into_iter().chain(kept) {
            let name = detached.as_deref().unwrap_or(table.as_str());
            let failed = || format!("cannot read the user's rows in {name}");
            let sql = format!(
                "SELECT CASE WHEN $4::text IS NULL
                             THEN json_build_object('table', $3::text, 'row', to_json(stored))
                             ELSE json_build_object('table', $3::text, 'detached', $4::text, 'row', to_json(stored))
                        END::text
                   FROM {name} AS stored WHERE tenant_id = $1 AND user_key = $2
                  ORDER BY occurred_at, event_id"
            );
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&subject.tenant, &subject.key, &table.as_str(), &detached];
            let rows = snapshot.query_raw(sql.as_str(), parameters).await;
            let mut rows = pin!(rows.with_context(failed)?);
            while let Some(row) = rows.try_next().await.with_context(failed)? {
                take(row.get(0))?;
                count += 1;
            }
        }
    }
    snapshot
        .commit()
        .await
        .context("cannot end a transaction")?;
    for id in quarantined::find(client, subject).await? {
        let entry = show(client, id).await?;
        let row: serde_json::Value = serde_json::from_str(&entry.row)?;
        let line = serde_json::json!({
            "table": "ingest_quarantine", "for": entry.table, "code": entry.sqlstate, "row": row,
        });
        take(&line.to_string())?;
        count += 1;
    }
    Ok(count)
}
