//! Why partitions could not be read or made.

use super::range::Range;
use crate::event::table::Table;
use crate::postgres::error as postgres;
use crate::postgres::sqlstate::passes_by_itself;

/// Why partitions could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something failed that is not about a partition.
    #[error(transparent)]
    Connection(#[from] postgres::Error),
    /// The partition of these days is missing, and the role may not make it.
    #[error(
        "there is no partition for {range}, and the role may not make one: \
         make it, or give the role the right to"
    )]
    NotAllowed {
        /// What it would hold.
        range: Range,
    },
    /// Somebody held a lock for too long; nothing was changed, and it is worth
    /// trying again later.
    #[error(
        "cannot make a partition of {table} now, its locks are taken: try again, \
         and look in pg_stat_activity for long transactions that change {table}"
    )]
    Busy {
        /// The table that was to get a partition.
        table: Table,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
    /// There is no such table, or not one with time ranges: trying again is in
    /// vain until an operator has migrated or mended the schema.
    #[error(
        "{table} cannot have partitions by time: it is {found}; run the migrations, \
         or check the search_path of the role"
    )]
    NotPartitioned {
        /// The table that was to be partitioned.
        table: Table,
        /// What there is instead.
        found: String,
    },
    /// A partition of that time is half detached, and takes rows no more while
    /// it keeps others out.
    #[error(
        "partition {partition} of {table} is being detached: once that is over its range can be \
         made anew; if it was interrupted, ALTER TABLE {table} DETACH PARTITION {partition} FINALIZE"
    )]
    Detaching {
        /// The parent.
        table: Table,
        /// The partition that is on its way out.
        partition: String,
    },
    /// Postgres said no, or was away: to be told apart by its SQLSTATE.
    #[error("cannot {doing} of {table}")]
    Postgres {
        /// What we were doing, as in "cannot attach a partition".
        doing: &'static str,
        /// The parent.
        table: Table,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// Whether trying again later is worth it.
    pub(crate) fn passes_by_itself(&self) -> bool {
        match self {
            Self::Connection(error) => error.is_away(),
            // No row is involved: any other refusal is of our own DDL.
            Self::Postgres { source, .. } => passes_by_itself(source),
            Self::NotPartitioned { .. } | Self::NotAllowed { .. } => false,
            Self::Busy { .. } | Self::Detaching { .. } => true,
        }
    }

    /// Whether the role lacks a right, which trying again does not change.
    pub(crate) fn is_denied(&self) -> bool {
        let Self::Postgres { source, .. } = self else {
            return false;
        };
        source.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    }
}
