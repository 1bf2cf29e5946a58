//! The two tables that this service writes.

use std::fmt;

/// One of the two time-partitioned event tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `exposure_events`: what was shown.
    Exposures,
    /// `interaction_events`: what people did with it.
    Interactions,
}

impl Table {
    /// Both tables, in a fixed order; `self as usize` indexes it.
    pub const ALL: [Table; 2] = [Table::Exposures, Table::Interactions];

    /// The table's name in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Table::Exposures => "exposure_events",
            Table::Interactions => "interaction_events",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
