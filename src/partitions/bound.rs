//! What a partition says it holds, as Postgres writes it.

use super::literal::parse_timestamp;
use super::range::Range;

/// What a partition says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Rows of this time.
    Range(Range),
    /// Whatever no other partition holds.
    Default,
}

/// Reads what `pg_get_expr` says of a partition's bound, in a session whose
/// time zone is UTC and whose date style is ISO. None if it is no such bound.
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
