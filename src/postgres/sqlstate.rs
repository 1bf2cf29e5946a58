//! What an SQLSTATE says about where the cause of an error lies.
//!
//! The one place where SQLSTATEs are read. An error that came with rows may be the fault
//! of one of them; the same code from any other statement may not.

use tokio_postgres::error::{DbError, Severity};

/// Where the cause of an error can lie that came with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// In the server or its load: it passes.
    Server,
    /// In the server; if it lasts, in a row.
    ServerThenRow,
    /// In the session or in the shape of the table: every row meets it.
    Schema,
    /// In a row; if all fail, in the table.
    Row,
}

impl Cause {
    /// The table of SQLSTATEs, and of classes where a class has one cause.
    ///
    /// What is not listed can come from one row: a trigger may run anything, and
    /// may raise any code.
    pub(crate) fn of(code: &str) -> Self {
        match code {
            // lock_not_available: the holder lets go.
            "55P03" => Cause::Server,
            // A session that was ended for its age, or what such an end left behind.
            "25P02" | "25P03" | "25P04" => Cause::Server,
            // Its BEGIN was lost or refused, and what may not be without one was
            // refused after it; see `transaction`.
            "25006" => Cause::Server,
            // protocol_violation as an ERROR, invalid_binary_representation and
            // bad_copy_file_format: our bytes are of another type than a column.
            "08P01" | "22P03" | "22P04" => Cause::Schema,
            _ => match &code[..2] {
                // Transaction rollback, insufficient resources, system error.
                "40" | "53" | "58" => Cause::Server,
                // As an ERROR, 08 is the connection of a trigger to elsewhere, and 57
                // a statement that was cancelled: by an operator, or because it
                // takes too long.
                "08" | "57" => Cause::ServerThenRow,
                // Transaction state, prepared statements, authorization.
                "25" | "26" | "28" => Cause::Schema,
                _ => Cause::Row,
            },
        }
    }

    /// The cause of an error that came with rows.
    pub(crate) fn of_rows(db: &DbError) -> Self {
        match (Self::of(db.code().code()), is_raised(db)) {
            // A trigger may pass on what it caught, such as a deadlock.
            (Cause::Server, true) => Cause::ServerThenRow,
            (Cause::Schema, true) => Cause::Row,
            (cause, _) => cause,
        }
    }
}

/// Whether a PL/pgSQL function raised the error, with a code of its choice.
pub(crate) fn is_raised(db: &DbError) -> bool {
    db.routine() == Some("exec_stmt_raise")
}

/// Whether the server has ended the connection with this error, whatever its code.
pub(crate) fn ends_connection(db: &DbError) -> bool {
    matches!(
        db.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

/// Whether the error of a statement that carries no rows passes by itself: the server is
/// away or busy. Any other has to be mended by an operator.
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
}
