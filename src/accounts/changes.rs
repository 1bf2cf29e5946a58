//! Which days of which tenant have changed: a mark in the transaction that stores the rows.
//!
//! Invariant: a snapshot that has a row that a batch stored has its mark, with another number than
//! before. A row of marks belongs to one lane, so that no lane waits for another;
//! see docs/decisions/0023-changed-days.md. Which marks were seen is not recorded here.

use uuid::Uuid;

use crate::event::time::Micros;

const DAY_MICROS: i64 = 86_400_000_000;

/// The days of tenants, as parameters of a statement: equal places belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangedDays {
    pub(crate) tenants: Vec<Uuid>,
    /// Days since 1970-01-01, in UTC.
    pub(crate) days: Vec<i32>,
}

impl ChangedDays {
    /// The days of rows whose keys come in order: by tenant, then by time. A day that comes out of
    /// order is listed again, which marking would refuse.
    pub(crate) fn of(keys: impl Iterator<Item = (Uuid, Micros)>) -> Self {
        let mut changed = Self::default();
        // Most rows are of the same day as the one before.
        let mut last = None;
        for (tenant, at) in keys {
            let day = at.0.div_euclid(DAY_MICROS);
            if last.replace((tenant, day)) != Some((tenant, day)) {
                changed.tenants.push(tenant);
                let day = i32::try_from(day).expect("2^63 microseconds are fewer than 2^31 days");
                changed.days.push(day);
            }
        }
        changed
    }
}

/// A statement that marks the days in the parameters `tenants` and `days`, two arrays, if `only_if`
/// has a row. The other arguments are parameters or constants, too.
pub(crate) fn mark(
    [tenants, days]: [&str; 2],
    [table, instance, lineage, stream]: [&str; 4],
    only_if: &str,
) -> String {
    format!(
        "INSERT INTO ingest_changed_days AS marked
             (tenant_id, day, table_name, instance_id, lineage, stream, changes)
         SELECT changed.tenant_id, date '1970-01-01' + changed.day, {table}::text, {instance}::uuid,
                {lineage}::uuid, {stream}::smallint, (extract(epoch FROM now()) * 1000000)::bigint
           FROM unnest({tenants}::uuid[], {days}::int4[]) AS changed (tenant_id, day), {only_if}
             ON CONFLICT (tenant_id, day, table_name, instance_id, lineage, stream) DO UPDATE
            SET changes = marked.changes + 1, changed_at = now()"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_of_each_tenant_is_listed_once() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let at = |day: i64, micros: i64| Micros(day * DAY_MICROS + micros);
        let keys = [
            (one, at(-1, 0)),
            (one, at(-1, DAY_MICROS - 1)),
            (one, at(0, 0)),
            (one, at(0, 0)),
            (one, at(2, 5)),
            (two, at(2, 6)),
            (two, at(2, 7)),
        ];
        let changed = ChangedDays::of(keys.into_iter());
        assert_eq!(changed.tenants, [one, one, one, two]);
        assert_eq!(changed.days, [-1, 0, 2, 2]);
        assert_eq!(ChangedDays::of(std::iter::empty()), ChangedDays::default());
        let ends = [(one, Micros(i64::MIN)), (one, Micros(i64::MAX))];
        assert_eq!(ChangedDays::of(ends.into_iter()).days.len(), 2);
    }
}
