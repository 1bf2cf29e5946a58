//! The savepoint between two spans.

/// The statement between two spans. It is sent with the next COPY, so that a span costs two round
/// trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tidy {
    /// The savepoint is fresh.
    Nothing,
    /// Keep the rows of the last span.
    Keep,
    /// Undo the last span, which failed.
    Undo,
}

impl Tidy {
    pub(super) fn sql(self) -> Option<&'static str> {
        match self {
            Tidy::Nothing => None,
            Tidy::Keep => Some("RELEASE span; SAVEPOINT span"),
            // `ROLLBACK TO` keeps the savepoint.
            Tidy::Undo => Some("ROLLBACK TO span"),
        }
    }
}
