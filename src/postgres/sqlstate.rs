//! Where the cause of an error lies, by its SQLSTATE.
//!
//! An error of a statement with rows may be caused by one of them; the same code from any other
//! statement may not. A single code with a special meaning, such as a duplicate key, is compared
//! where its statement runs.

use tokio_postgres::error::{DbError, Severity};

/// Where the cause of an error may lie for a statement with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// In the server or its load: it passes.
    Server,
    /// In the server; if it persists, in a row.
    ServerThenRow,
    /// In the session or the table definition: every row fails.
    Schema,
    /// In a row; if all rows fail, in the table.
    Row,
}

impl Cause {
    /// The causes of SQLSTATEs, and of classes with one cause.
    ///
    /// Any other code may come from one row: a trigger may run anything and raise any code.
    pub(crate) fn of(code: &str) -> Self {
        match code {
            // lock_not_available: the lock will be released.
            "55P03" => Cause::Server,
            // A session or transaction timeout ended the transaction, or it had already failed.
            "25P02" | "25P03" | "25P04" => Cause::Server,
            // read_only_sql_transaction: its BEGIN was lost or refused, and the session is
            // read-only outside of one; see `writer::transaction`.
            "25006" => Cause::Server,
            // protocol_violation as an ERROR, invalid_binary_representation and
            // bad_copy_file_format: a column's type does not match our bytes.
            "08P01" | "22P03" | "22P04" => Cause::Schema,
            _ => match &code[..2] {
                // Transaction rollback, insufficient resources, system error.
                "40" | "53" | "58" => Cause::Server,
                // As an ERROR, 08 is a connection that a trigger opened, and 57 a statement that
                // was cancelled: by an operator, or by a timeout.
                "08" | "57" => Cause::ServerThenRow,
                // Transaction state, prepared statements, authorization.
                "25" | "26" | "28" => Cause::Schema,
                _ => Cause::Row,
            },
        }
    }

    /// The cause of an error of a statement with rows.
    pub(crate) fn of_rows(db: &DbError) -> Self {
        match (Self::of(db.code().code()), is_raised(db)) {
            // A trigger may raise again what it caught, such as a deadlock.
            (Cause::Server, true) => Cause::ServerThenRow,
            (Cause::Schema, true) => Cause::Row,
            (cause, _) => cause,
        }
    }
}

/// Whether a PL/pgSQL function raised the error, with any code.
pub(crate) fn is_raised(db: &DbError) -> bool {
    db.routine() == Some("exec_stmt_raise")
}

/// Whether a shard of a distributed table refused rows of a COPY. Citus passes its message on
/// alone: the code is that of an internal error, and the line, the constraint and the shard's own
/// code are gone. So a duplicate, a bad row, a missing partition and a fault of the shard look the
/// same.
pub(crate) fn is_of_a_shard(db: &DbError) -> bool {
    hides_its_cause(db.code().code(), db.routine())
}

fn hides_its_cause(code: &str, routine: Option<&str>) -> bool {
    code == "XX000" && routine == Some("ReportCopyError")
}

/// Whether the server ended the connection with this error.
pub(crate) fn ends_connection(db: &DbError) -> bool {
    matches!(
        db.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

/// Whether the error of a statement without rows passes by itself: the server is unreachable or
/// busy. For any other error an operator has to act.
pub fn passes_by_itself(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else {
        return true;
    };
    let code = db.code().code();
    ends_connection(db)
        || match Cause::of(code) {
            Cause::Server | Cause::ServerThenRow => true,
            // An internal error may pass.
            Cause::Row => code.starts_with("XX"),
            Cause::Schema => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_sessions_and_shapes_are_not_judged_by_rows() {
        for code in [
            "21000", "22012", "23514", "0A000", "2F005", "38000", "39000", "42501", "44000",
            "54000", "55000", "P0001", "XX000", "XX001", "ZZ999",
        ] {
            assert_eq!(Cause::of(code), Cause::Row, "{code}");
        }
        for code in [
            "25006", "25P02", "25P04", "40001", "40P01", "53100", "53300", "55P03", "58030",
        ] {
            assert_eq!(Cause::of(code), Cause::Server, "{code}");
        }
        for code in ["08006", "57014", "57P01"] {
            assert_eq!(Cause::of(code), Cause::ServerThenRow, "{code}");
        }
        for code in ["08P01", "22P03", "25001", "26000", "28000"] {
            assert_eq!(Cause::of(code), Cause::Schema, "{code}");
        }
    }

    #[test]
    fn only_an_internal_error_that_a_copy_reports_for_a_shard_hides_its_cause() {
        for (code, routine, hides) in [
            ("XX000", Some("ReportCopyError"), true),
            // A trigger can raise the code, and cannot choose the routine.
            ("XX000", Some("exec_stmt_raise"), false),
            ("XX000", None, false),
            // The connection to a shard broke: its code is its own.
            ("58030", Some("ReportCopyError"), false),
            ("23505", Some("_bt_check_unique"), false),
        ] {
            assert_eq!(hides_its_cause(code, routine), hides, "{code} {routine:?}");
        }
    }
}
