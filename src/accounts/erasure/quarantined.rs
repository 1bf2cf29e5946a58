//! A user's rows in quarantine.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio_postgres::Client;

use super::begin::Subject;
use crate::accounts::removed::{self, Kind, QUARANTINE, Reason};
use crate::event::row::rows::Rows;
use crate::event::row::user_key;

/// The key of a row that is kept as bytes.
pub(crate) fn key_in(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let rows = Rows::parse(Bytes::from(bytes)).ok()?;
    let row = rows.iter().next()?;
    user_key(rows.table(), row).map(<[u8]>::to_vec)
}

/// The ids of a user's rows from before the time.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn find(client: &Client, subject: &Subject) -> Result<Vec<i64>> {
    let rows = client
        .query(
            "SELECT id, row_bytes FROM ingest_quarantine
              WHERE tenant_id = $1 AND occurred_at < $3
                AND (row ->> 'user_key' = '\\x' || encode($2, 'hex') OR row IS NULL)
              ORDER BY id",
            &[&subject.tenant, &subject.key, &subject.before],
        )
        .await
        .context("cannot read the quarantine")?;
    let is_theirs = |bytes: Option<Vec<u8>>| match bytes {
        None => true,
        Some(bytes) => key_in(bytes).is_some_and(|key| key == subject.key),
    };
    let theirs = rows.iter().filter(|row| is_theirs(row.get(1)));
    Ok(theirs.map(|row| row.get(0)).collect())
}

/// Removes a user's rows from quarantine, and books them. Returns how many.
///
/// # Errors
///
/// When Postgres refuses or is unreachable.
pub async fn erase(client: &mut Client, subject: &Subject) -> Result<i64> {
    let ids = find(client, subject).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let erasing = async {
        let tx = client.transaction().await?;
        let sql = "DELETE FROM ingest_quarantine WHERE id = ANY ($1)";
        let gone = tx.execute(sql, &[&ids]).await?;
        let gone = i64::try_from(gone).unwrap_or(i64::MAX);
        let reason = Reason {
            table: QUARANTINE,
            kind: Kind::Erasure,
            words: "of a user who was erased",
            tenant: Some(subject.tenant),
        };
        removed::book(&tx, &reason, gone).await?;
        tx.commit().await?;
        Ok::<_, tokio_postgres::Error>(gone)
    };
    erasing.await.context("cannot erase rows in quarantine")
}
