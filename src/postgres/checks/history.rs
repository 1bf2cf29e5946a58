//! The history of migrations as findings.

use std::time::Duration;

use tokio_postgres::Client;

use crate::finding::{Finding, Severity};
use crate::postgres::error::{Error, limited};

const LIMIT: Duration = Duration::from_secs(10);

/// Migrations are missing, and this service does not apply them.
pub fn behind(names: &[String]) -> Finding {
    Finding::new(
        Severity::Fault,
        "schema_behind",
        format!("the schema lacks {}", names.join(", ")),
        "the statements of this version need it",
        "run `recsys-ingest migrate`, or start with --migrate-on-start true",
    )
}

/// The migrations were tried and failed.
pub fn not_migrated(error: &anyhow::Error) -> Finding {
    Finding::new(
        Severity::Fault,
        "schema_behind",
        format!("the schema could not be brought up to date ({error:#})"),
        "the statements of this version need it",
        "mend that, or run `recsys-ingest migrate` as a role that may; it is tried again by itself",
    )
}

/// Another version or build migrated the database.
pub fn foreign() -> Finding {
    Finding::new(
        Severity::Degraded,
        "schema_foreign",
        "the schema was migrated by another version or build of this program",
        "statements of this version may not fit it",
        "run the version that migrated it",
    )
}

/// The role of the session may not read the history.
///
/// # Errors
///
/// When the connection is lost.
pub async fn unreadable(client: &Client) -> Result<Finding, Error> {
    let asking = client.query_one("SELECT quote_ident(session_user::text)", &[]);
    let row = limited("ask for the role of the session", LIMIT, asking).await?;
    let role: &str = row.get(0);
    Ok(Finding::new(
        Severity::Note,
        "schema_unknown",
        "the role may not read ingest_schema_history",
        "whether migrations are missing is not known",
        format!("GRANT SELECT ON ingest_schema_history TO {role}"),
    ))
}
