//! The statements of a lane: the binary COPY, the ledger update, and the search for stored rows.

use bytes::Bytes;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink, Error, Statement};
use uuid::Uuid;

use crate::event::table::Table;
use crate::event::time::Micros;
use crate::postgres::copy::statement;

use super::batch::Batch;
use super::ledger::LedgerEntry;
use crate::accounts::ledger::Totals;

/// Sent before the search for stored rows. The planner assumes few keys for an array of unknown
/// length, and a partition may have grown since it planned: a scan of the table would cost its
/// size, one index probe a key costs the batch.
const PROBE_BY_INDEX: &str = "SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off;
    SET LOCAL enable_seqscan = off";

/// Sent after it: gives the session's own settings back, to COPY's triggers for one. No savepoint,
/// as Citus cannot return to an earlier one once a later one was opened.
const PROBED: &str = "SET LOCAL enable_hashjoin TO DEFAULT;
    SET LOCAL enable_mergejoin TO DEFAULT;
    SET LOCAL enable_seqscan TO DEFAULT";

/// The statements of a lane, prepared once for its connection.
#[derive(Debug)]
pub(crate) struct Statements {
    copy: Statement,
    stored: Statement,
    enter: Statement,
}

impl Statements {
    pub(crate) async fn prepare(client: &Client, table: Table) -> Result<Self, Error> {
        // A join, as a distributed Postgres takes no correlated subquery here. With
        // `PROBE_BY_INDEX` it is one index probe per key, pruned to one partition at run time. The
        // key is unique, so no key comes twice.
        let stored = format!(
            "SELECT wanted.n
               FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[])
                    WITH ORDINALITY AS wanted(tenant_id, occurred_at, event_id, n)
               JOIN {table} AS stored
                    ON stored.tenant_id = wanted.tenant_id
                   AND stored.occurred_at = wanted.occurred_at
                   AND stored.event_id = wanted.event_id"
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

    /// The rows that are already stored, in ascending order. Runs within a transaction; after an
    /// error that one has to be rolled back.
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
        let keys: [&(dyn ToSql + Sync); 3] = [&tenants, &times, &events];
        // Sent together, so that the search costs one round trip.
        let (begun, found, ended) = tokio::join!(
            biased;
            client.batch_execute(PROBE_BY_INDEX),
            client.query(&self.stored, &keys),
            client.batch_execute(PROBED),
        );
        begun?;
        let found = found?;
        ended?;
        let mut found: Vec<usize> = found
            .iter()
            .filter_map(|row| usize::try_from(row.get::<_, i64>(0) - 1).ok())
            .map(|place| rows[place])
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}
