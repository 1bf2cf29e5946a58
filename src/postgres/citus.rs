//! What differs where Citus keeps the rows of event tables on its workers: the tables here are empty,
//! and statements about them are passed on. See `docs/scale.md`.

use tokio_postgres::{Error, GenericClient};

use crate::event::table::Table;

/// For the session of a lane: a batch goes through one connection to each worker, so that its COMMIT
/// prepares few transactions and all lanes lock keys in one order; and what is set within a
/// transaction holds there, too. PostgreSQL without Citus takes any setting whose name has a dot,
/// and nothing reads it.
pub(crate) const FOR_LANES: &str =
    "SET citus.max_adaptive_executor_pool_size = 1; SET citus.propagate_set_commands = 'local'";

/// An SQL condition: whether the rows of the table with this oid are on workers.
pub(crate) async fn on_workers(client: &impl GenericClient, oid: &str) -> Result<String, Error> {
    let catalog = "SELECT to_regclass('pg_dist_partition') IS NOT NULL";
    Ok(match client.query_one(catalog, &[]).await?.get(0) {
        true => format!("EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = {oid})"),
        false => "false".to_owned(),
    })
}

/// Whether the rows of an event table are on workers.
pub(crate) async fn is_on_workers(
    client: &impl GenericClient,
    table: Table,
) -> Result<bool, Error> {
    let condition = on_workers(client, "found.oid").await?;
    let asking = format!("SELECT {condition} FROM to_regclass($1) AS found (oid)");
    let row = client.query_one(&asking, &[&table.as_str()]).await?;
    Ok(row.get(0))
}
