//! Decides the next step for a partition from its catalog state.
//!
//! Pure: no database, no clock.

use std::time::Duration;

use crate::event::time::Micros;

use crate::partitions::indexes::{IndexProfile, SecondaryIndex, secondary_indexes};
use crate::partitions::leaf::Leaf;

/// The partitions to seal.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Partitions with a range that is over.
    Due {
        /// With [`IndexProfile::Full`], hot partitions get all indexes, too.
        profile: IndexProfile,
        /// The grace after the end of the range, or after the creation of the partition if that was
        /// later: an import of history may still be running.
        after: Duration,
        now: Micros,
    },
    /// Partitions with these names, at any time.
    Named(Vec<String>),
}

/// One step of sealing a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Drop the invalid index of an interrupted build.
    Drop(String),
    /// Build an index.
    Build(&'static SecondaryIndex),
    /// All indexes exist: run ANALYZE, and record that it is sealed.
    Finish,
}

impl Selection {
    /// The next step for a partition, if there is one.
    pub(crate) fn step(&self, leaf: &Leaf) -> Option<Step> {
        let (is_over, wants_indexes) = match self {
            Selection::Due {
                profile,
                after,
                now,
            } => {
                let is_over = is_over(leaf, *after, *now);
                (is_over, is_over || *profile == IndexProfile::Full)
            }
            Selection::Named(names) => {
                let is_meant = names.contains(&leaf.name);
                (is_meant, is_meant)
            }
        };
        if wants_indexes && let Some(step) = index_step(leaf) {
            return Some(step);
        }
        (is_over && !leaf.is_logged_sealed).then_some(Step::Finish)
    }
}

fn is_over(leaf: &Leaf, after: Duration, now: Micros) -> bool {
    let since_us = leaf.range.to_us.max(leaf.made_us.unwrap_or(i64::MIN));
    let after_us = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
    // A range without an end is never over.
    leaf.range.to_us != i64::MAX && since_us.saturating_add(after_us) <= now.0
}

/// Leftovers of interrupted builds come first: each costs every insert, and it has the name that
/// the new index needs.
fn index_step(leaf: &Leaf) -> Option<Step> {
    let wanted = secondary_indexes(leaf.table);
    let leftover = leaf.indexes.iter().find(|index| {
        !index.is_valid && wanted.iter().any(|w| w.name_on(&leaf.name) == index.name)
    });
    if let Some(leftover) = leftover {
        return Some(Step::Drop(leftover.name.clone()));
    }
    wanted
        .iter()
        .find(|wanted| !leaf.indexes.iter().any(|index| index.serves(wanted)))
        .map(Step::Build)
}

#[cfg(test)]
mod tests {
    use crate::event::table::Table;
    use crate::partitions::indexes::FoundIndex;
    use crate::partitions::range::Range;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_US: i64 = 3_600_000_000;

    fn leaf(has: &[(&str, &str, bool)]) -> Leaf {
        Leaf {
            table: Table::Interactions,
            oid: 1,
            schema: "public".to_owned(),
            name: "p".to_owned(),
            range: Range {
                from_us: 0,
                to_us: 24 * HOUR_US,
            },
            indexes: has
                .iter()
                .map(|&(name, shape, is_valid)| FoundIndex {
                    name: name.to_owned(),
                    shape: shape.to_owned(),
                    is_valid,
                })
                .collect(),
            made_us: None,
            is_logged_sealed: false,
        }
    }

    fn due(profile: IndexProfile, hours: i64) -> Selection {
        Selection::Due {
            profile,
            after: HOUR,
            now: Micros(hours * HOUR_US),
        }
    }

    #[test]
    fn nothing_happens_before_range_and_grace_are_over_and_never_without_an_end() {
        let [early, late] = [24, 25].map(|hours| due(IndexProfile::Deferred, hours));
        let mut leaf = leaf(&[]);
        assert_eq!(early.step(&leaf), None);
        assert!(matches!(late.step(&leaf), Some(Step::Build(_))));
        // The import of an old day has just begun.
        leaf.made_us = Some(30 * HOUR_US);
        assert_eq!(due(IndexProfile::Deferred, 30).step(&leaf), None);
        assert!(due(IndexProfile::Deferred, 31).step(&leaf).is_some());
        leaf.range.to_us = i64::MAX;
        let the_end = Selection::Due {
            profile: IndexProfile::Deferred,
            after: HOUR,
            now: Micros(i64::MAX),
        };
        assert_eq!(the_end.step(&leaf), None);
    }

    #[test]
    fn a_leftover_goes_first_then_what_is_missing_then_the_end() {
        let late = due(IndexProfile::Deferred, 25);
        let wanted = secondary_indexes(Table::Interactions);
        let mut all: Vec<_> = wanted.iter().map(|w| ("theirs", w.shape, true)).collect();
        assert_eq!(late.step(&leaf(&all)), Some(Step::Finish));
        all[2] = ("p_item_time", wanted[2].shape, false);
        assert_eq!(
            late.step(&leaf(&all)),
            Some(Step::Drop("p_item_time".to_owned()))
        );
        // An invalid index with a foreign name is not ours to drop, and does not count.
        all[2].0 = "theirs";
        assert_eq!(late.step(&leaf(&all)), Some(Step::Build(&wanted[2])));
        all[2].2 = true;
        let mut done = leaf(&all);
        done.is_logged_sealed = true;
        assert_eq!(late.step(&done), None);
    }

    #[test]
    fn the_full_profile_wants_indexes_at_once_and_is_sealed_in_time() {
        let wanted = secondary_indexes(Table::Interactions);
        let early = due(IndexProfile::Full, 1);
        assert_eq!(early.step(&leaf(&[])), Some(Step::Build(&wanted[0])));
        let all: Vec<_> = wanted.iter().map(|w| ("p", w.shape, true)).collect();
        assert_eq!(early.step(&leaf(&all)), None);
        let late = due(IndexProfile::Full, 25);
        assert_eq!(late.step(&leaf(&all)), Some(Step::Finish));
    }

    #[test]
    fn a_named_partition_is_sealed_whatever_the_time_and_no_other() {
        let step = |name: &str| Selection::Named(vec![name.to_owned()]).step(&leaf(&[]));
        assert!(step("p").is_some());
        assert_eq!(step("q"), None);
    }
}
