//! Item signals of a day: what was shown most often, and what was shown together.
//!
//! They are computed in Postgres and put into the suite's tables. Readers see a day's signals as they
//! were or as they are now, never half of them. Postgres spills what exceeds a session's `work_mem`
//! to disk, so that memory is bounded however large the day is.

pub mod compute;
mod covisitation;
pub mod days;
mod popularity;

use std::time::{Duration, Instant};

/// How much is kept of a day, for each surface. The defaults are the suite's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The items that are kept: the most popular ones, and for co-visitation the first ones by id.
    pub items_max: u32,
    /// The neighbors that are kept of an item.
    pub neighbors_max: u32,
    /// The sessions that must have seen two items for them to be neighbors.
    pub sessions_min: u32,
    /// A session with more items than this says nothing of which items go together, and costs their
    /// square: it is left out of co-visitation.
    pub session_items_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            items_max: 1000,
            neighbors_max: 50,
            sessions_min: 2,
            session_items_max: 200,
        }
    }
}

/// The rows of one of the suite's tables for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The rows that the day has now.
    pub rows: u64,
    /// Rows that were inserted, updated or deleted.
    pub changed: u64,
    /// How long that took.
    pub took: Duration,
}

/// The result of computing a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computed {
    /// Items in the lists of the day, each as often as it was shown.
    pub shown: u64,
    /// The rows in `item_popularity_daily`.
    pub popularity: Written,
    /// The rows in `item_covisit_daily`.
    pub covisitation: Written,
    /// Sessions with more than `session_items_max` items.
    pub sessions_left_out: u64,
}

/// How many rows a table has for the day, and how many were changed.
#[derive(Clone, Copy, Debug)]
struct Counted {
    rows: u64,
    changed: u64,
}

impl Counted {
    fn after(self, started: Instant) -> Written {
        let Self { rows, changed } = self;
        Written {
            rows,
            changed,
            took: started.elapsed(),
        }
    }
}

/// The text without white space around it, as the suite trims ids: SQL's own trimming knows only the
/// space.
fn trimmed(text: &str) -> String {
    // What Unicode calls white space.
    format!(
        "btrim({text}, E' \\t\\n\\x0b\\f\\r\\u0085\\u00a0\\u1680\\u2000\\u2001\\u2002\\u2003\\u2004\\u2005\\u2006\\u2007\\u2008\\u2009\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000')"
    )
}

/// The name of a surface in the suite's tables.
fn namespace() -> String {
    format!("coalesce(nullif({}, ''), 'default')", trimmed("e.surface"))
}

/// The items of the exposures `e`, as `listed (item)`. A response of another form has none.
const LISTED: &str = "jsonb_array_elements(
    CASE jsonb_typeof(e.response -> 'items') WHEN 'array' THEN e.response -> 'items' END
) AS listed (item)";
