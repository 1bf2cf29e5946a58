//! Quarantines rows.
//!
//! A row is kept as JSON, which people can read. If Postgres refuses that because of a value or the
//! message, the row is kept as bytes, with an ASCII message.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::event::row::{framed, received_at};
use crate::event::row_json::row_to_json;
use crate::postgres::error::{Error, limited};
use crate::writer::batch::Batch;
use crate::writer::error::RejectedRow;

const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// Rows, and bytes of rows, in one statement: more do not make it cheaper.
const ROWS_MAX: usize = 500;
const BYTES_MAX: usize = 1 << 20;

const DOING: &str = "set a row aside in ingest_quarantine, so its batch stays in the spool";

/// A row that is quarantined twice, because its sender tried again, is kept once.
const PUT: &str = "
    INSERT INTO ingest_quarantine
        (table_name, tenant_id, occurred_at, event_id, received_at, sqlstate, message,
         column_name, constraint_name, row)
    SELECT $1, bad.tenant_id, bad.occurred_at, bad.event_id, bad.received_at, given.sqlstate,
           given.message, given.column_name, given.constraint_name, given.row::jsonb
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
           AS given (row, sqlstate, message, column_name, constraint_name),
           jsonb_to_record(given.row::jsonb)
           AS bad (tenant_id uuid, occurred_at timestamptz, event_id uuid, received_at timestamptz)
        ON CONFLICT DO NOTHING";

const PUT_BYTES: &str = "
    INSERT INTO ingest_quarantine
        (table_name, tenant_id, occurred_at, event_id, received_at, sqlstate, message,
         column_name, constraint_name, row_bytes)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT DO NOTHING";

/// Quarantines rows within the caller's transaction. Returns how many of them were in quarantine
/// already.
pub(crate) async fn put(
    client: &Client,
    batch: &Batch,
    bad_rows: &[(usize, RejectedRow)],
) -> Result<usize, Error> {
    if bad_rows.is_empty() {
        return Ok(0);
    }
    let statement = limited(DOING, STATEMENT_LIMIT, client.prepare(PUT)).await?;
    let quarantine = Quarantine {
        client,
        batch,
        statement,
    };
    quarantine.execute("SAVEPOINT aside").await?;
    let mut new = 0;
    let mut rest = bad_rows;
    while !rest.is_empty() {
        let portion;
        (portion, rest) = rest.split_at(quarantine.portion(rest));
        new += quarantine.put(portion).await?;
    }
    quarantine.execute("RELEASE aside").await?;
    assert!(
        new <= bad_rows.len(),
        "Postgres counts more rows in quarantine than were put there"
    );
    Ok(bad_rows.len() - new)
}

/// The quarantine in a transaction that has the savepoint `aside`.
struct Quarantine<'b> {
    client: &'b Client,
    batch: &'b Batch,
    statement: Statement,
}

impl Quarantine<'_> {
    /// How many of the first rows fit one statement, at least one.
    fn portion(&self, rows: &[(usize, RejectedRow)]) -> usize {
        let mut bytes = 0;
        let fitting = rows.iter().take(ROWS_MAX).take_while(|(at, _)| {
            bytes += self.batch.row(*at).len();
            bytes <= BYTES_MAX
        });
        fitting.count().max(1)
    }

    /// Quarantines rows together, or each alone if that is refused. Returns how many are new.
    async fn put(&self, rows: &[(usize, RejectedRow)]) -> Result<usize, Error> {
        if let Some(new) = self.put_json(rows).await? {
            return Ok(new);
        }
        let mut new = 0;
        for row in rows {
            // A single row has already failed as JSON.
            let as_json = match rows.len() {
                1 => None,
                _ => self.put_json(std::slice::from_ref(row)).await?,
            };
            new += match as_json {
                Some(new) => new,
                None => self.put_bytes(row).await?,
            };
        }
        Ok(new)
    }

    /// `None` if the rows are refused or cannot be written as JSON; then nothing was done.
    async fn put_json(&self, rows: &[(usize, RejectedRow)]) -> Result<Option<usize>, Error> {
        let table = self.batch.table();
        let json: Option<Vec<String>> = rows
            .iter()
            .map(|(at, _)| row_to_json(table, self.batch.row(*at)))
            .collect();
        let Some(json) = json else {
            return Ok(None);
        };
        let bad = || rows.iter().map(|(_, bad)| bad);
        let sqlstates: Vec<_> = bad().map(|bad| bad.sqlstate.as_str()).collect();
        let messages: Vec<_> = bad().map(|bad| bad.message.as_str()).collect();
        let columns: Vec<_> = bad().map(|bad| bad.column.as_deref()).collect();
        let constraints: Vec<_> = bad().map(|bad| bad.constraint.as_deref()).collect();
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &table.as_str(),
            &json,
            &sqlstates,
            &messages,
            &columns,
            &constraints,
        ];
        let putting = self.client.execute(&self.statement, &parameters);
        match limited(DOING, STATEMENT_LIMIT, putting).await {
            Ok(new) => {
                self.keep().await?;
                Ok(Some(usize::try_from(new).unwrap_or(rows.len())))
            }
            Err(error) if error.is_refusal() => {
                self.execute("ROLLBACK TO aside").await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn put_bytes(&self, (at, bad): &(usize, RejectedRow)) -> Result<usize, Error> {
        let table = self.batch.table();
        let (key, row) = (self.batch.key(*at), self.batch.row(*at));
        // A time that Postgres refuses would keep the row out of quarantine: omit one outside the
        // years −9999 to 9999.
        let received_at =
            received_at(row).filter(|at| jiff::Timestamp::from_microsecond(at.0).is_ok());
        let column = bad.column.as_deref().map(ascii);
        let constraint = bad.constraint.as_deref().map(ascii);
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &table.as_str(),
            &key.tenant,
            &key.occurred_at,
            &key.event_id,
            &received_at,
            &ascii(&bad.sqlstate),
            &ascii(&bad.message),
            &column,
            &constraint,
            &framed(table, row),
        ];
        let putting = self.client.execute(PUT_BYTES, &parameters);
        let new = limited(DOING, STATEMENT_LIMIT, putting).await?;
        self.keep().await?;
        Ok(usize::try_from(new).unwrap_or(1))
    }

    /// Moves the savepoint, so that the next refusal undoes no earlier insert.
    async fn keep(&self) -> Result<(), Error> {
        self.execute("RELEASE aside; SAVEPOINT aside").await
    }

    async fn execute(&self, sql: &str) -> Result<(), Error> {
        limited(DOING, STATEMENT_LIMIT, self.client.batch_execute(sql)).await
    }
}

/// The text with `\u{…}` in place of characters that are not ASCII.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => out.extend(c.escape_unicode()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_legible_in_ascii() {
        assert_eq!(ascii("a \"b\"\n"), "a \"b\"\n");
        assert_eq!(ascii("kein Gift, ä"), "kein Gift, \\u{e4}");
    }
}
