//! What the probes share.

use anyhow::{Context as _, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::diagnosis::{Diagnosis, Mend};
use crate::finding::{Finding, Severity};
use crate::postgres::error::describe;

/// A finding without a table.
pub(super) fn note(
    severity: Severity,
    code: &'static str,
    seen: String,
    meaning: &str,
    remedy: impl Into<String>,
    mend: Mend,
) -> Diagnosis {
    Diagnosis::new(Finding::new(severity, code, seen, meaning, remedy), mend)
}

/// A size in words.
pub(super) fn size(bytes: i64) -> String {
    bytesize::ByteSize(u64::try_from(bytes).unwrap_or(0)).to_string()
}

/// A query that says in its error what was looked for.
pub(super) async fn rows(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>> {
    let rows = client.query(sql, parameters).await;
    rows.map_err(|error| anyhow::anyhow!("{}", describe(&error)))
        .context("PostgreSQL refused the question")
}
