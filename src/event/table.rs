//! The tables that this service writes.

use std::fmt;

/// One of the time-partitioned event tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `exposure_events`: what was shown.
    Exposures,
    /// `interaction_events`: what people did with it.
    Interactions,
    /// `ingest_assignments`: who was in which variant of an experiment.
    Assignments,
}

impl Table {
    /// All tables, in a fixed order; `self as usize` indexes it. Rows in the spool name their table
    /// by this number, so it is kept.
    pub const ALL: [Table; 3] = [Table::Exposures, Table::Interactions, Table::Assignments];

    /// The tables that the suite declares as well, so that they may be found in its database.
    pub const OF_SUITE: [Table; 2] = [Table::Exposures, Table::Interactions];

    /// The table's name in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Table::Exposures => "exposure_events",
            Table::Interactions => "interaction_events",
            Table::Assignments => "ingest_assignments",
        }
    }

    /// One of its events, in words.
    pub const fn event(self) -> &'static str {
        match self {
            Table::Exposures => "an exposure",
            Table::Interactions => "an interaction",
            Table::Assignments => "an assignment",
        }
    }

    /// Its events, in words.
    pub const fn events(self) -> &'static str {
        match self {
            Table::Exposures => "exposures",
            Table::Interactions => "interactions",
            Table::Assignments => "assignments",
        }
    }

    /// The path of the endpoint that takes its events.
    pub const fn path(self) -> &'static str {
        match self {
            Table::Exposures => "/v1/exposures",
            Table::Interactions => "/v1/interactions",
            Table::Assignments => "/v1/assignments",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
