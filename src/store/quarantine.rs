//! Rows that Postgres refused, kept where an operator can look at them.

use std::time::Duration;

use tokio_postgres::Client;

use crate::event::row_json::row_to_json;

use super::batch::Batch;
use super::error::{BadRow, Trouble, limited};

const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// A row that is set aside twice (a replay) is there once.
const PUT: &str = "
    INSERT INTO ingest_quarantine
        (table_name, tenant_id, occurred_at, event_id, received_at, sqlstate, message,
         column_name, constraint_name, row)
    SELECT $1, tenant_id, occurred_at, event_id, received_at, $3, $4, $5, $6, $2::text::jsonb
      FROM jsonb_to_record($2::text::jsonb)
           AS bad (tenant_id uuid, occurred_at timestamptz, event_id uuid, received_at timestamptz)
        ON CONFLICT DO NOTHING";

/// Sets rows aside, within the caller's transaction.
pub(super) async fn put(
    client: &Client,
    batch: &Batch,
    bad_rows: &[(usize, BadRow)],
) -> Result<(), Trouble> {
    if bad_rows.is_empty() {
        return Ok(());
    }
    let doing = "set a bad row aside";
    let table = batch.table().as_str();
    let put = limited(doing, STATEMENT_LIMIT, client.prepare(PUT)).await?;
    for (at, bad) in bad_rows {
        let row = row_to_json(batch.table(), batch.row(*at))
            .expect("rows were checked when they were made");
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &table, &row, &bad.sqlstate, &bad.message, &bad.column, &bad.constraint,
        ];
        limited(doing, STATEMENT_LIMIT, client.execute(&put, &parameters)).await?;
    }
    Ok(())
}
