//! The statements of a lane: the binary COPY, the ledger update, and the search for stored rows.

use bytes::Bytes;
use tokio_postgres::{Client, CopyInSink, Error, Statement};
use uuid::Uuid;

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::postgres::copy::statement;

use super::batch::Batch;
use super::ledger::LedgerEntry;
use crate::accounts::ledger::Totals;

/// The statements of a lane, prepared once for its connection.
#[derive(Debug)]
pub(crate) struct Statements {
    copy: Statement,
    stored: Statement,
    enter: Statement,
}

impl Statements {
    pub(crate) async fn prepare(client: &Client, table: Table) -> Result<Self, Error> {
        // A scalar subquery is one index probe per key, pruned to one partition at run time,
        // for any array length that the planner assumes.
        let stored = format!(
            "SELECT wanted.n
               FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[])
                    WITH ORDINALITY AS wanted(tenant_id, occurred_at, event_id, n)
              WHERE (SELECT true
                       FROM {table} AS stored
                      WHERE stored.tenant_id = wanted.tenant_id
                        AND stored.occurred_at = wanted.occurred_at
                        AND stored.event_id = wanted.event_id
                      LIMIT 1)"
        );
        Ok(Self {
            copy: client.prepare(&statement(table)).await?,
            stored: client.prepare(&stored).await?,
            enter: LedgerEntry::prepare(client).await?,
        })
    }

    /// Begins a COPY. An error here comes before Postgres has seen a row.
    ///
    /// Dropping the sink aborts the COPY.
    pub(crate) async fn begin_copy(&self, client: &Client) -> Result<CopyInSink<Bytes>, Error> {
        client.copy_in(&self.copy).await
    }

    /// Enters a batch into the ledger. `None` if its row has changed since it was read.
    pub(crate) async fn enter(
        &self,
        client: &Client,
        entry: &LedgerEntry<'_>,
    ) -> Result<Option<Totals>, Error> {
        entry.write(client, &self.enter).await
    }

    /// The rows that are already stored, in ascending order.
    pub(crate) async fn stored(
        &self,
        client: &Client,
        batch: &Batch,
        rows: &[usize],
    ) -> Result<Vec<usize>, Error> {
        let keys = || rows.iter().map(|&at| batch.key(at));
        let tenants: Vec<Uuid> = keys().map(|key| key.tenant).collect();
        let events: Vec<Uuid> = keys().map(|key| key.event_id).collect();
        let times: Vec<Micros> = keys().map(|key| key.occurred_at).collect();
        let found = client
            .query(&self.stored, &[&tenants, &times, &events])
            .await?;
        let mut found: Vec<usize> = found
            .iter()
            .filter_map(|row| usize::try_from(row.get::<_, i64>(0) - 1).ok())
            .map(|place| rows[place])
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}
