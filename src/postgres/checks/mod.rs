//! What this service needs of a database, and what is wrong with it.
//!
//! [`inspect`] checks one connection and returns a list of [`Finding`]s, so that `serve` can report
//! at its start what could never be stored, instead of after the first acknowledgement. It changes
//! nothing, and judges only the catalog, never an error message. `accounts::board` holds the
//! findings in force, for readiness, metrics and the log.

pub(crate) mod pooler;

pub(crate) mod clock;
pub(crate) mod columns;
pub(crate) mod facts;
pub(crate) mod history;
pub mod lean;
pub(crate) mod relations;
pub(crate) mod server;

use crate::finding::Finding;

use std::time::Duration;

use tokio_postgres::Client;

use super::error::{Error, limited};
use facts::Facts;

/// Reading the catalog takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs all checks, in one round trip. The service needs `connections` of them open at once.
///
/// # Errors
///
/// When the connection is lost or the catalog cannot be read.
pub async fn inspect(client: &Client, connections: u32) -> Result<Vec<Finding>, Error> {
    let facts = limited("check the database", LIMIT, facts::read(client)).await?;
    Ok(judge(&facts, connections))
}

/// Judges the facts. Pure.
fn judge(facts: &Facts, connections: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(server::encoding(&facts.server));
    findings.extend(server::connections(&facts.server, connections));
    relations::judge(facts, &mut findings);
    columns::judge(facts, &mut findings);
    lean::judge(facts, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}
