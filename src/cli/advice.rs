//! What is to be done about an error of a table, column or function that is not there.

use std::error::Error;

use tokio_postgres::error::SqlState;

const ADVICE: &str = "the schema is missing, not up to date, or has lost something: run `recsys-ingest migrate` first, \
                      which makes what is missing or says what does";

/// What is to be done about an error, given with its causes, if something of the schema is missing.
pub(super) fn advice<'e>(
    chain: impl IntoIterator<Item = &'e (dyn Error + 'static)>,
) -> Option<&'static str> {
    let is_missing = chain.into_iter().any(|cause| {
        let cause = cause.downcast_ref::<tokio_postgres::Error>();
        let code = cause.and_then(tokio_postgres::Error::code);
        code.is_some_and(|code| {
            [
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_COLUMN,
                SqlState::UNDEFINED_FUNCTION,
            ]
            .contains(code)
        })
    });
    is_missing.then_some(ADVICE)
}

/// The error, with the advice unless it has some.
pub(super) fn with_advice(error: anyhow::Error) -> anyhow::Error {
    match advice(error.chain()) {
        Some(advice) if !format!("{error:#}").contains("recsys-ingest migrate") => {
            error.context(advice)
        }
        _ => error,
    }
}
