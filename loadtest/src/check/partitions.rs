//! Whether a row lies where its partition's name and bounds say.

use std::collections::HashMap;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio_postgres::Client;

/// The partitions of one table by oid.
pub(super) struct Partitions {
    by_oid: HashMap<u32, Partition>,
}

struct Partition {
    name: String,
    /// From its bounds, in microseconds; none for a default partition.
    bounds: Option<(i64, i64)>,
    /// The day or month in its name, where there is one.
    named: Option<i64>,
}

impl Partitions {
    /// Reads them; the session's time zone must be UTC.
    pub(super) async fn read(client: &Client, table: &str) -> anyhow::Result<Self> {
        let rows = client
            .query(
                "SELECT c.oid, c.relname::text, pg_get_expr(c.relpartbound, c.oid) \
                 FROM pg_partition_tree($1::text::regclass) t JOIN pg_class c ON c.oid = t.relid \
                 WHERE t.isleaf",
                &[&table],
            )
            .await
            .with_context(|| format!("cannot list the partitions of {table}"))?;
        let mut by_oid = HashMap::new();
        for row in rows {
            let name: String = row.try_get(1)?;
            let bound: Option<String> = row.try_get(2)?;
            let partition = Partition {
                bounds: bound.as_deref().and_then(bounds),
                named: named(&name, table),
                name,
            };
            by_oid.insert(row.try_get::<_, u32>(0)?, partition);
        }
        Ok(Self { by_oid })
    }

    /// What is wrong with a row of `occurred_us` in partition `oid`.
    pub(super) fn complaint(&self, oid: u32, occurred_us: i64) -> Option<String> {
        let Some(partition) = self.by_oid.get(&oid) else {
            // Made after we looked; the next look sees it.
            return Some(format!("it lies in a partition of oid {oid} that is none"));
        };
        let name = &partition.name;
        let Some((from, to)) = partition.bounds else {
            return Some(format!("it lies in {name}, which has no range"));
        };
        if !(from..to).contains(&occurred_us) {
            return Some(format!("it lies in {name}, which does not reach it"));
        }
        match partition.named {
            Some(named) if named != from => Some(format!(
                "it lies in {name}, which begins at {} in truth",
                crate::report::time(from)
            )),
            _ => None,
        }
    }
}

/// `FOR VALUES FROM ('…') TO ('…')`
fn bounds(expression: &str) -> Option<(i64, i64)> {
    let mut quoted = expression.split('\'').skip(1).step_by(2).map(instant);
    Some((quoted.next()??, quoted.next()??))
}

/// A timestamptz as Postgres prints it in UTC.
fn instant(text: &str) -> Option<i64> {
    let utc = text.strip_suffix("+00")?;
    let at: Timestamp = format!("{}Z", utc.replacen(' ', "T", 1)).parse().ok()?;
    Some(at.as_microsecond())
}

/// The beginning of the day or month in `<table>_YYYY_MM_DD` or `<table>_YYYY_MM`.
fn named(name: &str, table: &str) -> Option<i64> {
    let mut parts = name.strip_prefix(table)?.strip_prefix('_')?.split('_');
    let year = parts.next()?.parse().ok()?;
    let month = parts.next()?.parse().ok()?;
    let day = parts.next().map_or(Some(1), |day| day.parse().ok())?;
    let date = Date::new(year, month, day).ok()?;
    let at = date.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp();
    Some(at.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_postgres_prints_them() {
        let text = "FOR VALUES FROM ('2026-05-24 00:00:00+00') TO ('2026-05-25 00:00:00+00')";
        let (from, to) = bounds(text).unwrap();
        assert_eq!(to - from, 86_400_000_000);
        assert_eq!(bounds("DEFAULT"), None);
        assert_eq!(
            named("exposure_events_2026_05_24", "exposure_events"),
            Some(from)
        );
        assert_eq!(named("exposure_events_old", "exposure_events"), None);
    }
}
