//! `recsys-ingest partitions list`: which there are.

use anyhow::Result;
use serde_json::json;

use crate::cli::terminal::{Output, open};
use crate::config::database::Database;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::logging;
use crate::partitions;
use crate::partitions::catalog::PartitionInfo;
use crate::postgres::checks::{self, lean};

/// The columns of a list of partitions.
pub(super) const HEAD: [&str; 7] = ["table", "partition", "from", "to", "rows", "bytes", "state"];

pub(super) async fn run(database: &Database, json: bool) -> Result<()> {
    let mut session = open(database).await?;
    let mut output = Output::table(json, &HEAD);
    for table in Table::ALL {
        for info in partitions::catalog::list(&mut session.client, table).await? {
            row(&mut output, table, &info);
        }
    }
    output.print()?;
    for finding in checks::inspect(&session.client, 0).await? {
        if lean::CODES.contains(&finding.code) {
            logging::say(&format!("warning: {finding}"));
        }
    }
    Ok(())
}

/// Adds a partition to a list of them.
pub(super) fn row(output: &mut Output, table: Table, info: &PartitionInfo) {
    let bound = |us: Option<i64>| us.map(|us| Micros(us).to_string());
    let (from, to) = (bound(info.from_us), bound(info.to_us));
    let rows = info.rows_estimate.map(|rows| rows.to_string());
    let state = info.index_state.map(|state| state.to_string());
    let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
    let document = json!({
        "table": table.as_str(), "partition": info.name, "from": from, "to": to,
        "rows_estimate": info.rows_estimate, "bytes": info.bytes, "is_default": info.is_default,
        "state": state,
    });
    output.row(
        &[
            &table,
            &info.name,
            &or(&from, "-"),
            &or(&to, "-"),
            &or(&rows, "?"),
            &info.bytes,
            &or(&state, "-"),
        ],
        document,
    );
}
