//! Writes when keys were last used.

use tokio_postgres::Client;
use uuid::Uuid;

use super::LastUse;
use crate::event::time::Micros;
use crate::postgres::error::ErrorChain;
use crate::tenants::snapshot::Snapshot;

/// Most keys in one statement: a refresh is not delayed by more.
const KEYS_MAX: usize = 1_000;

/// Writes the marks.
#[derive(Debug, Default)]
pub(in crate::tenants) struct Writer {
    /// Whether Postgres refused them: then it was said once, and is not tried again on this
    /// connection.
    is_refused: bool,
}

impl Writer {
    /// Writes the last use of at most [`KEYS_MAX`] keys; others follow with the next call.
    pub(in crate::tenants) async fn write(
        &mut self,
        client: &Client,
        snapshot: &Snapshot,
    ) -> Result<(), tokio_postgres::Error> {
        if self.is_refused {
            return Ok(());
        }
        let marks: Vec<(Uuid, &LastUse, Micros)> = snapshot
            .each_last_use()
            .filter_map(|(id, last_use)| Some((id, last_use, last_use.unwritten()?)))
            .take(KEYS_MAX)
            .collect();
        if marks.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = marks.iter().map(|(id, ..)| *id).collect();
        let times: Vec<Micros> = marks.iter().map(|(.., at)| *at).collect();
        for table in ["tenant_api_keys", "ingest_publish_keys"] {
            // A row that another session holds is left out: the refresh does not wait for it, and the
            // key's next use is written.
            let sql = format!(
                "UPDATE {table} AS k SET last_used_at = used.at \
                 FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at) \
                 WHERE k.id = used.id AND (k.last_used_at IS NULL OR k.last_used_at < used.at) \
                   AND k.id IN (SELECT id FROM {table} WHERE id = ANY($1) \
                                FOR NO KEY UPDATE SKIP LOCKED)"
            );
            match client.execute(&sql, &[&ids, &times]).await {
                Ok(_) => {}
                Err(error) if error.code().is_some() => {
                    self.is_refused = true;
                    tracing::info!(
                        error = %ErrorChain(&error),
                        "PostgreSQL does not let it be noted when API keys were last used; GRANT UPDATE (last_used_at) ON tenant_api_keys, ingest_publish_keys to it, or ignore this"
                    );
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        for (_, last_use, at) in marks {
            last_use.set_written(at);
        }
        Ok(())
    }
}
