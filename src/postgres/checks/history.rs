//! The history of migrations as findings.

use crate::finding::{Finding, Severity};

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

/// The role may not read the history.
pub fn unreadable() -> Finding {
    Finding::new(
        Severity::Note,
        "schema_unknown",
        "the role may not read ingest_schema_history",
        "whether migrations are missing is not known",
        "GRANT SELECT ON ingest_schema_history to the role of the service",
    )
}
