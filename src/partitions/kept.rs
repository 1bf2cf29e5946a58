//! `ingest_retention`: the time from which on rows of a table are kept.
//!
//! Invariant: it moves before the first partition is detached for it, and never back. Who reads it
//! after that makes no partition again that ends before it.

use tokio_postgres::GenericClient;

use super::error::Error;
use super::literal::timestamp;
use crate::event::table::Table;
use crate::event::time::Micros;

/// Reads it, in microseconds. `i64::MIN`: nothing was removed yet.
pub(crate) async fn read_kept_from(
    client: &impl GenericClient,
    table: Table,
) -> Result<i64, Error> {
    let row = client
        .query_opt(
            "SELECT kept_from FROM ingest_retention WHERE table_name = $1",
            &[&table.as_str()],
        )
        .await
        .map_err(failed("read from when on rows are kept", table))?;
    Ok(row.map_or(i64::MIN, |row| row.get::<_, Micros>(0).0))
}

/// Moves it up to `kept_from_us`, if it is not beyond that.
pub(crate) async fn raise_kept_from(
    client: &impl GenericClient,
    table: Table,
    kept_from_us: i64,
) -> Result<(), Error> {
    client
        .execute(
            "INSERT INTO ingest_retention AS kept (table_name, kept_from)
             VALUES ($1, $2::text::timestamptz)
                 ON CONFLICT (table_name) DO UPDATE
                SET kept_from = excluded.kept_from, updated_at = now()
              WHERE kept.kept_from < excluded.kept_from",
            &[&table.as_str(), &timestamp(kept_from_us)],
        )
        .await
        .map_err(failed("note from when on rows are kept", table))?;
    Ok(())
}

fn failed(doing: &'static str, table: Table) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Postgres {
        doing,
        table,
        source,
    }
}
