//! Binary COPY, row by row.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{CopyInSink, Error};

use crate::event::row::Key;
use crate::event::table::Table;

/// Bytes handed to the connection at once. Below 128 KiB the cost of the hop to its task is
/// measurable; above 512 KiB the copies no longer fit the cache.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The header before the first row: a signature, flags and an extension length (both zero).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The COPY statement for rows of `table`.
pub fn statement(table: Table) -> String {
    let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
    let columns = columns.join(", ");
    format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")
}

/// Sends rows through a COPY that has begun. Returns how many Postgres counts. After an error it
/// has stored none of them.
///
/// # Errors
///
/// When Postgres refuses a row, or the connection is lost.
pub async fn send<'r>(
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

/// The only row of a binary `COPY … TO`; `None` if it is not exactly one row of `table`.
pub(crate) fn only_row(table: Table, copied: &[u8]) -> Option<Vec<u8>> {
    let row = copied.strip_prefix(HEADER)?.strip_suffix(&[0xff, 0xff])?;
    let columns = row.first_chunk().map(|count| i16::from_be_bytes(*count))?;
    let is_row = usize::try_from(columns) == Ok(table.columns().len());
    (is_row && Key::of_row(row).is_some()).then(|| row.to_vec())
}
