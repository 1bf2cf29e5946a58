//! The bound of a partition, in the form that Postgres prints.

use super::literal::parse_timestamp;
use super::range::Range;

/// The bound of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Rows of this range.
    Range(Range),
    /// Rows that no other partition holds.
    Default,
}

/// Parses the output of `pg_get_expr` for a partition's bound, in a session with time zone UTC and
/// date style ISO. `None` if it is not a range of time.
pub(crate) fn parse_bound(text: &str) -> Option<Bound> {
    if text == "DEFAULT" {
        return Some(Bound::Default);
    }
    let values = text.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?;
    let (from, to) = values.split_once(") TO (")?;
    Some(Bound::Range(Range {
        from_us: parse_end(from)?,
        to_us: parse_end(to)?,
    }))
}

fn parse_end(text: &str) -> Option<i64> {
    match text {
        "MINVALUE" => Some(i64::MIN),
        "MAXVALUE" => Some(i64::MAX),
        _ => parse_timestamp(text.strip_prefix('\'')?.strip_suffix('\'')?),
    }
}
