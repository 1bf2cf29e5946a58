//! Why partitions could not be read or created.

use super::range::Range;
use crate::event::table::Table;
use crate::postgres::error as postgres;
use crate::postgres::sqlstate::passes_by_itself;

/// Why partitions could not be read or created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A failure that is not about a partition.
    #[error(transparent)]
    Connection(#[from] postgres::Error),
    /// The partition for this range is missing, and the role may not create it.
    #[error(
        "there is no partition for {range}, and the role may not make one: \
         make it, or give the role the right to"
    )]
    NotAllowed { range: Range },
    /// Another session held a lock for too long. Nothing was changed; try again later.
    #[error(
        "cannot make a partition of {table} now, its locks are taken: try again, \
         and look in pg_stat_activity for long transactions that change {table}"
    )]
    Busy {
        /// The table that needs a partition.
        table: Table,
        source: tokio_postgres::Error,
    },
    /// Rows of that range are being moved out of the DEFAULT partition. They are in a partition once
    /// that is over; new ones have to wait.
    #[error("rows of {range} are being moved out of the DEFAULT partition of {table}: try again")]
    Leaving { table: Table, range: Range },
    /// There is no such table, or it is not partitioned by time. A retry fails until an operator
    /// has migrated or fixed the schema.
    #[error(
        "{table} cannot have partitions by time: it is {found}; run `recsys-ingest migrate`, \
         or check the search_path of the role"
    )]
    NotPartitioned {
        /// The table that should be partitioned.
        table: Table,
        /// What was found instead.
        found: String,
    },
    /// The partition of that range is being detached: it takes no rows, and no other partition can
    /// cover its range yet.
    #[error(
        "partition {partition} of {table} is being detached: once that is over its range can be \
         made again; if it was interrupted, ALTER TABLE {table} DETACH PARTITION {partition} FINALIZE"
    )]
    Detaching {
        table: Table,
        /// The partition that is being detached.
        partition: String,
    },
    /// Postgres refused a statement or was unreachable: its SQLSTATE tells which.
    #[error("cannot {doing} of {table}")]
    Postgres {
        /// The operation that failed, as in "cannot attach a partition".
        doing: &'static str,
        table: Table,
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// Whether a later retry may succeed.
    pub(crate) fn passes_by_itself(&self) -> bool {
        match self {
            Self::Connection(error) => error.is_away(),
            // No row is involved: any other refusal is about our own DDL.
            Self::Postgres { source, .. } => passes_by_itself(source),
            Self::NotPartitioned { .. } | Self::NotAllowed { .. } => false,
            Self::Busy { .. } | Self::Leaving { .. } | Self::Detaching { .. } => true,
        }
    }

    /// Whether a statement got no answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Connection(error) if error.is_timeout())
    }

    /// Whether the role lacks a privilege, which a retry does not change.
    pub(crate) fn is_denied(&self) -> bool {
        let Self::Postgres { source, .. } = self else {
            return false;
        };
        source.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    }
}
