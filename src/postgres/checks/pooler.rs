//! Poolers in transaction mode: they share one server connection between several sessions.

use crate::finding::{Finding, Severity};

/// A pooler shares one server connection between several of our sessions.
pub(crate) fn pooler() -> Finding {
    Finding::new(
        Severity::Fault,
        "transaction_pooler",
        "a connection pooler in transaction mode stands between the service and PostgreSQL",
        "session settings, prepared statements and locks end up with other sessions",
        "use session mode (pool_mode = session), or connect to PostgreSQL directly; then start again",
    )
}
