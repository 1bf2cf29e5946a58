//! One binary COPY, and the question which rows are there already.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, CopyInSink, Error, Statement};
use uuid::Uuid;

use crate::event::{Key, Micros, Table};

use super::batch::Batch;
use super::ledger::{Entry, Totals};

/// Bytes handed to the connection at once. Below 128 KiB the hop to its task
/// shows, above 512 KiB the copies no longer fit the cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// What COPY reads before the first row: a signature, flags and an extension
/// length (both zero).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The statements that a writer runs, prepared once on its connection.
#[derive(Debug)]
pub(super) struct Statements {
    copy: Statement,
    stored: Statement,
    enter: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client, table: Table) -> Result<Self, Error> {
        // A scalar subquery is one index probe a key, pruned to one partition at
        // run time, whatever the planner believes about the array's length.
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
            enter: Entry::prepare(client).await?,
        })
    }

    /// Begins a COPY. What Postgres refuses here, it refuses before it has seen a row.
    ///
    /// Dropping the sink aborts the COPY.
    pub(super) async fn begin_copy(&self, client: &Client) -> Result<CopyInSink<Bytes>, Error> {
        client.copy_in(&self.copy).await
    }

    /// Enters a batch into the ledger; `None` if its row was changed since it was read.
    pub(super) async fn enter(
        &self,
        client: &Client,
        entry: &Entry<'_>,
    ) -> Result<Option<Totals>, Error> {
        entry.write(client, &self.enter).await
    }

    /// Which of the given rows are stored already, in ascending order.
    pub(super) async fn stored(
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

/// The COPY of rows into `table`.
pub(super) fn statement(table: Table) -> String {
    let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
    let columns = columns.join(", ");
    format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")
}

/// Sends rows through a COPY that has begun; returns how many Postgres counts.
/// On an error it has taken none of them.
pub(super) async fn send<'r>(
    sink: CopyInSink<Bytes>,
    rows: impl Iterator<Item = &'r [u8]>,
) -> Result<u64, Error> {
    let mut sink = pin!(sink);
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    chunk.put_slice(HEADER);
    for row in rows {
        if chunk.len() + row.len() > CHUNK_BYTES && !chunk.is_empty() {
            sink.feed(chunk.split().freeze()).await?;
            chunk.reserve(CHUNK_BYTES);
        }
        chunk.put_slice(row);
    }
    chunk.put_i16(-1);
    sink.feed(chunk.freeze()).await?;
    sink.finish().await
}

/// The one row of a binary `COPY … TO`; none if it holds no row of `table`.
pub(super) fn only_row(table: Table, copied: &[u8]) -> Option<Vec<u8>> {
    let row = copied.strip_prefix(HEADER)?.strip_suffix(&[0xff, 0xff])?;
    let columns = row.first_chunk().map(|count| i16::from_be_bytes(*count))?;
    let is_row = usize::try_from(columns) == Ok(table.columns().len());
    (is_row && Key::of_row(row).is_some()).then(|| row.to_vec())
}
