//! The same rows for every way: made by the service's own decoding and encoding.
//!
//! Keeps one invariant: what COPY loads is, column by column, what the service
//! stores for the same bodies, but for the time at which it received them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, pin_mut};
use recsys_ingest::event::body::{Body, Framing, Limits};
use recsys_ingest::event::context::{Context, Tenants};
use recsys_ingest::event::decode::decode;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::generate::body::Bodies;
use crate::generate::event::Events;
use crate::generate::plan::Plan;
use crate::generate::settings::Settings;

/// Rows of a block: as many as the service writes at once.
const BLOCK_ROWS: u64 = 10_000;
/// What COPY reads before the first row: a signature, flags and an extension
/// length (both zero).
pub(crate) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What COPY reads after the last row.
pub(crate) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();
/// As the service does by default.
const ITEMS_MAX: usize = 1000;

/// Columns of ours that the suite's own tables do not have.
const OURS: [&str; 2] = ["event_id", "received_at"];

/// The rows of one table in every form in which they are loaded.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) table: Table,
    /// How many there are.
    pub(crate) count: u64,
    /// Rows of binary COPY, without header and trailer.
    pub(crate) blocks: Vec<Bytes>,
    /// The same as text.
    pub(crate) text: PathBuf,
    /// The same as text, with the suite's columns.
    pub(crate) suite_text: PathBuf,
}

/// A tenant whom everything belongs to.
struct Only(Uuid);

impl Tenants for Only {
    fn resolve(&self, _named: &str) -> Result<Uuid, Code> {
        Ok(self.0)
    }
}

/// Encodes all events of `settings` as the service would.
pub(crate) fn encode(
    settings: &Settings,
    table: Table,
    tenant: Uuid,
    salt: &str,
    received_at: Micros,
) -> anyhow::Result<(u64, Vec<Bytes>)> {
    let plan = Plan::new(settings)?;
    let pseudonymizer = Pseudonymizer::new(salt.as_bytes());
    let context = Context {
        table,
        format: None,
        tenant,
        tenants: &Only(tenant),
        // The role of the key that posts the same events.
        source: "ingest",
        pseudonymizer: &pseudonymizer,
        received_at,
        earliest: Micros(i64::MIN),
        latest: Micros(i64::MAX),
        items_max: ITEMS_MAX,
        new_event_id: &Uuid::now_v7,
        skew_ms: None,
    };
    let limits = Limits {
        events_max: usize::MAX,
        event_bytes_max: usize::MAX,
    };
    let (mut count, mut in_block) = (0, 0);
    let (mut blocks, mut block) = (Vec::new(), BytesMut::new());
    for body in Bodies::new(Events::new(settings, &plan)) {
        let body = Body::split(&body.bytes, Framing::Json, &limits)
            .context("a body that we made cannot be read")?;
        let decoded = decode(&body, &context);
        if let Some(rejected) = decoded.rejected.first() {
            anyhow::bail!("an event that we made is rejected: {rejected:?}");
        }
        for row in decoded.rows.iter() {
            block.put_slice(row);
            count += 1;
            in_block += 1;
            if in_block == BLOCK_ROWS {
                blocks.push(block.split().freeze());
                in_block = 0;
            }
        }
    }
    if !block.is_empty() {
        blocks.push(block.freeze());
    }
    Ok((count, blocks))
}

impl Rows {
    /// Takes rows over that are in the table already, and has Postgres write them as text.
    pub(crate) async fn loaded(
        client: &Client,
        table: Table,
        count: u64,
        blocks: Vec<Bytes>,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let text = dir.join(format!("{table}.text"));
        let suite_text = dir.join(format!("{table}.suite.text"));
        write_text(client, table, &columns(table), &text).await?;
        write_text(client, table, &suite_columns(table), &suite_text).await?;
        Ok(Self {
            table,
            count,
            blocks,
            text,
            suite_text,
        })
    }
}

/// The columns of a row.
pub(crate) fn columns(table: Table) -> String {
    let names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
    names.join(", ")
}

/// The columns that the suite's tables have, but for the `id` that they make themselves.
pub(crate) fn suite_columns(table: Table) -> String {
    let names: Vec<_> = table
        .columns()
        .iter()
        .map(|column| column.name)
        .filter(|name| !OURS.contains(name))
        .collect();
    names.join(", ")
}

/// A number that two tables share only if their rows do, `received_at` apart.
pub(crate) async fn digest(client: &Client, table: Table) -> anyhow::Result<String> {
    let names: Vec<_> = table
        .columns()
        .iter()
        .map(|column| column.name)
        .filter(|name| *name != "received_at")
        .collect();
    let names = names.join(", ");
    let query = format!(
        "SELECT count(*)::text || ' rows, ' || sum(hashtextextended(ROW({names})::text, 0)::numeric)::text
           FROM {table}"
    );
    let row = client
        .query_one(&query, &[])
        .await
        .with_context(|| format!("cannot sum {table} up"))?;
    Ok(row.try_get::<_, Option<String>>(0)?.unwrap_or_default())
}

async fn write_text(
    client: &Client,
    table: Table,
    columns: &str,
    path: &Path,
) -> anyhow::Result<()> {
    let lines = client
        .copy_out(&format!("COPY (SELECT {columns} FROM {table}) TO STDOUT"))
        .await
        .with_context(|| format!("cannot read {table} as text"))?;
    pin_mut!(lines);
    let write = || format!("cannot write {}", path.display());
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).with_context(write)?);
    while let Some(line) = lines.next().await {
        std::io::Write::write_all(&mut file, &line?).with_context(write)?;
    }
    std::io::Write::flush(&mut file).with_context(write)
}
