//! The same rows for every method: made by the service's own decoder and encoder.
//!
//! Keeps one invariant: what COPY loads is, column by column, what the service
//! stores for the same bodies, but for the time at which it received them.

use std::path::PathBuf;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use uuid::Uuid;

use super::environment::{Environment, SALT};
use super::load::Load;
use super::method::copy;
use crate::generate::{Bodies, Plan, Settings};
use crate::sample::Request;
use crate::service::{Format, Framing, Micros, Pseudonymizer, Table};

/// Rows of a block: as many as the service writes at once.
const BLOCK_ROWS: u64 = 10_000;
/// Columns that the suite's own tables do not have.
const OURS: [&str; 2] = ["event_id", "received_at"];
/// Bodies in which the rows are made and checked.
const CHECK_BODY: u32 = 1000;

/// The rows of one table in every form in which they are loaded.
#[derive(Debug)]
pub struct Rows {
    pub table: Table,
    pub count: u64,
    /// Rows of binary COPY, without header and trailer.
    pub blocks: Vec<Bytes>,
    /// A file of the same as text.
    pub text: PathBuf,
    /// A file of the same as text, with the suite's columns.
    pub suite_text: PathBuf,
}

impl Rows {
    /// Makes the rows of a load, copies them into the empty table, and has Postgres write
    /// them as text.
    pub async fn make(environment: &Environment, load: &Load, now: Micros) -> anyhow::Result<Self> {
        let (table, tenant) = (load.table, environment.tenant);
        let mut settings = load.settings.clone();
        settings.body_events = CHECK_BODY..=CHECK_BODY;
        let encode = move || encode(settings, table, tenant, now);
        let encoded = tokio::task::spawn_blocking(encode).await;
        let (count, blocks) = encoded.context("encoding the rows failed")??;
        environment.clear(table.as_str()).await?;
        copy(&environment.admin, table, &blocks).await?;
        let rows = Self {
            table,
            count,
            blocks,
            text: environment.dir().join(format!("{table}.text")),
            suite_text: environment.dir().join(format!("{table}.suite.text")),
        };
        for (columns, file) in [
            (columns(table), &rows.text),
            (suite_columns(table), &rows.suite_text),
        ] {
            let file = file.display();
            let write = format!("\\copy (SELECT {columns} FROM {table}) TO '{file}'");
            environment.psql(&write).await?;
        }
        Ok(rows)
    }

    /// Makes sure that HTTP stores what COPY loads; the rows are in the table.
    pub async fn check(&self, environment: &Environment, load: &Load) -> anyhow::Result<()> {
        let table = self.table;
        let copied = digest(environment, table).await?;
        let mut load = load.clone();
        load.settings.body_events = CHECK_BODY..=CHECK_BODY;
        load.run_alone(environment).await?;
        let posted = digest(environment, table).await?;
        anyhow::ensure!(
            copied == posted,
            "HTTP does not store the rows that COPY loads into {table} ({posted}; {copied}): \
             build the load tester and the service from the same source"
        );
        Ok(())
    }
}

/// Encodes all events of `settings` as the service would.
fn encode(
    settings: Settings,
    table: Table,
    tenant: Uuid,
    received_at: Micros,
) -> anyhow::Result<(u64, Vec<Bytes>)> {
    let plan = Plan::new(settings)?;
    let pseudonymizer = Pseudonymizer::new(SALT.as_bytes());
    let request = Request {
        table,
        format: Format::Native,
        framing: Framing::Json,
        tenant,
        received_at,
    };
    let mut count = 0;
    let (mut blocks, mut block) = (Vec::new(), BytesMut::new());
    for body in Bodies::new(&plan) {
        let decoded = request.decode(&body.bytes, &pseudonymizer)?;
        if let Some(rejected) = decoded.rejected.first() {
            anyhow::bail!("an event that we made is rejected: {rejected:?}");
        }
        for row in decoded.rows.iter() {
            block.put_slice(row);
            count += 1;
            if count % BLOCK_ROWS == 0 {
                blocks.push(block.split().freeze());
            }
        }
    }
    if !block.is_empty() {
        blocks.push(block.freeze());
    }
    Ok((count, blocks))
}

pub fn columns(table: Table) -> String {
    columns_without(table, &[])
}

/// The columns that the suite's tables have, but for the `id` that they make themselves.
pub fn suite_columns(table: Table) -> String {
    columns_without(table, &OURS)
}

pub fn columns_without(table: Table, left_out: &[&str]) -> String {
    let names = table.columns().iter().map(|column| column.name);
    let names: Vec<_> = names.filter(|name| !left_out.contains(name)).collect();
    names.join(", ")
}

/// A text that two tables share only if their rows do, `received_at` apart.
pub async fn digest(environment: &Environment, table: Table) -> anyhow::Result<String> {
    let columns = columns_without(table, &["received_at"]);
    let query = format!(
        "SELECT count(*)::text || ' rows, '
             || coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)::text FROM {table}"
    );
    environment.value(&query).await
}
